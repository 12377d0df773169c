# One job for all methods of a sample: each is little work, and a job has its price on a cluster.
rule assemble:
    input:
        projections=rules.preprocess.output.projections,
        units=[path for method in CONFIG.methods for path in units_of(method)],
    output:
        **assembled_outputs(),
    log:
        f"{RESULTS}/{{sample}}/logs/assemble.log",
    benchmark:
        f"{RESULTS}/{{sample}}/benchmarks/assemble.tsv"
    group:
        in_group("after")
    conda:
        "../../envs/environment.yaml"
    threads: 2
    resources:
        lane=lane,
        mem_mb=memory_mb("assemble"),
        runtime=minutes("assemble"),
    params:
        methods=list(CONFIG.methods),
        uncertain=CONFIG.uncertain_methods,
        tiling=CONFIG.tiling.model_dump(),
    message:
        "{wildcards.sample}: writing the volumes"
    script:
        "../../scripts/assemble.py"
