# The rules that reconstruct take what this leaves in the place of the acquisition.
rule hold_out:
    input:
        projections=rules.preprocess.output.projections,
    output:
        projections=f"{RESULTS}/{{sample}}/held_out/projections.zip",
    log:
        f"{RESULTS}/{{sample}}/logs/hold_out.log",
    benchmark:
        f"{RESULTS}/{{sample}}/benchmarks/hold_out.tsv"
    group:
        in_group("before")
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        lane=lane,
        mem_mb=memory_mb("hold_out"),
        runtime=minutes("hold_out"),
    params:
        settings=CONFIG.validation.model_dump(exclude={"methods"}),
    message:
        "{wildcards.sample}: withholding projections"
    script:
        "../../scripts/hold_out.py"


rule validate:
    input:
        unpack(held_out_inputs),
        volumes=[volume_path("{sample}", method) for method in CONFIG.methods],
        projections=rules.preprocess.output.projections,
    output:
        metrics=f"{RESULTS}/{{sample}}/validation/metrics.tsv",
        projections=f"{RESULTS}/{{sample}}/validation/projections.tsv",
        depth=f"{RESULTS}/{{sample}}/validation/depth.tsv",
        maps=f"{RESULTS}/{{sample}}/validation/residual_maps.npz",
        determined=f"{RESULTS}/{{sample}}/determined.ozx",
        held_out=f"{RESULTS}/{{sample}}/held_out.tsv",
    log:
        f"{RESULTS}/{{sample}}/logs/validate.log",
    benchmark:
        f"{RESULTS}/{{sample}}/benchmarks/validate.tsv"
    group:
        in_group("after")
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        lane=lane,
        mem_mb=memory_mb("validate"),
        runtime=minutes("validate"),
    params:
        methods=list(CONFIG.methods),
        final=CONFIG.final,
        held_out_methods=RUN.held_out_methods,
        held_out_tiling=CONFIG.tiling.model_dump() | {"shards": 1},
    message:
        "{wildcards.sample}: judging the methods without ground truth"
    script:
        "../../scripts/validate.py"
