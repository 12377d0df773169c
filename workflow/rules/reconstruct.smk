rule reconstruct_baseline:
    input:
        unpack(baseline_inputs),
    output:
        units=units_path("{baseline}"),
    log:
        f"{RESULTS}/{{sample}}{{part}}/logs/reconstruct_baseline-{{baseline}}-{{shard}}.log",
    benchmark:
        f"{RESULTS}/{{sample}}{{part}}/benchmarks/reconstruct_baseline-{{baseline}}-{{shard}}.tsv"
    group:
        in_group(baselines)
    conda:
        "../../envs/environment.yaml"
    threads: 2
    resources:
        lane=lane,
        mem_mb=memory_mb("reconstruct_baseline"),
        runtime=minutes("reconstruct_baseline"),
    params:
        settings=baseline_settings,
        tiling=tiling_of,
        seed=CONFIG.seed,
    message:
        "{wildcards.sample}{wildcards.part}: {wildcards.baseline} reconstruction, shard {wildcards.shard}"
    script:
        "../../scripts/reconstruct_baseline.py"


rule fit_inr:
    input:
        projections=PROJECTIONS,
        spectral=units_path("spectral"),
    output:
        units=units_path("inr"),
    log:
        f"{RESULTS}/{{sample}}{{part}}/logs/fit_inr-{{shard}}.log",
    benchmark:
        f"{RESULTS}/{{sample}}{{part}}/benchmarks/fit_inr-{{shard}}.tsv"
    group:
        in_group(None)
    conda:
        "../../envs/environment.yaml"
    threads: 8
    resources:
        lane=lane,
        mem_mb=memory_mb("fit_inr"),
        runtime=minutes("fit_inr"),
        gpu=GPUS,
    params:
        settings=CONFIG.inr.model_dump(),
        tiling=tiling_of,
        seed=CONFIG.seed,
    message:
        "{wildcards.sample}{wildcards.part}: fitting the implicit neural representation, shard {wildcards.shard}"
    script:
        "../../scripts/fit_inr.py"
