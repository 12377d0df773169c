# What all acquisitions have in common. None of them is an input: one more in the sheet would repeat
# the estimate, and with it every finished sample. So it is kept until it is forced, and a run says
# where the sheet has changed since.
rule estimate_shading:
    output:
        fields=directory(f"{RESULTS}/flat_field"),
    log:
        f"{RESULTS}/logs/estimate_shading.log",
    benchmark:
        f"{RESULTS}/benchmarks/estimate_shading.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=memory_mb("estimate_shading"),
        runtime=minutes("estimate_shading"),
    message:
        "estimating the flat field of all acquisitions"
    script:
        "../../scripts/estimate_shading.py"


rule preprocess:
    input:
        unpack(preprocess_inputs),
    output:
        projections=f"{RESULTS}/{{sample}}/projections.zip",
    log:
        f"{RESULTS}/{{sample}}/logs/preprocess.log",
    benchmark:
        f"{RESULTS}/{{sample}}/benchmarks/preprocess.tsv"
    group:
        in_group("before")
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        lane=lane,
        mem_mb=memory_mb("preprocess"),
        runtime=minutes("preprocess"),
    params:
        beam=beam_settings,
        reading=reading_settings,
        settings=intensity_settings,
        corrections=CONFIG.corrections.model_dump(),
    message:
        "{wildcards.sample}: reading the projections"
    script:
        "../../scripts/preprocess.py"


rule convert_ground_truth:
    input:
        unpack(truth_inputs),
    output:
        truth=f"{RESULTS}/{{sample}}/ground_truth.ozx",
    log:
        f"{RESULTS}/{{sample}}/logs/convert_ground_truth.log",
    benchmark:
        f"{RESULTS}/{{sample}}/benchmarks/convert_ground_truth.tsv"
    group:
        in_group("after")
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        lane=lane,
        mem_mb=memory_mb("convert_ground_truth"),
        runtime=minutes("convert_ground_truth"),
    params:
        settings=intensity_settings,
    message:
        "{wildcards.sample}: reading the ground truth"
    script:
        "../../scripts/convert_ground_truth.py"
