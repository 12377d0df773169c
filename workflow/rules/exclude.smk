rule exclude_samples:
    output:
        touch(f"{RESULTS}/.excluded-samples"),
    log:
        f"{RESULTS}/logs/exclude_samples.log",
    benchmark:
        f"{RESULTS}/benchmarks/exclude_samples.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=100,
        runtime=5,
    params:
        text=RUN.describe_rejections(),
    message:
        "Some samples were excluded by the check of the input; the others go on"
    shell:
        "printf '%s\n' {params.text:q} > {log:q}; exit 1"
