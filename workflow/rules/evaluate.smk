rule evaluate:
    input:
        volumes=[volume_path("{sample}", method) for method in CONFIG.methods],
        truth=truth_of,
        projections=rules.preprocess.output.projections,
        uncertainties=[
            std_path("{sample}", method) for method in CONFIG.uncertain_methods
        ],
        validation=rules.validate.output.metrics,
    output:
        metrics=f"{RESULTS}/{{sample}}/metrics.tsv",
        slices=f"{RESULTS}/{{sample}}/slice_metrics.tsv",
        sweep=f"{RESULTS}/{{sample}}/evaluation/dice_by_threshold.tsv",
        shells=f"{RESULTS}/{{sample}}/evaluation/shell_correlation.tsv",
        conditions=f"{RESULTS}/{{sample}}/evaluation/conditions.json",
    log:
        f"{RESULTS}/{{sample}}/logs/evaluate.log",
    benchmark:
        f"{RESULTS}/{{sample}}/benchmarks/evaluate.tsv"
    group:
        in_group("after")
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        lane=lane,
        mem_mb=memory_mb("evaluate"),
        runtime=minutes("evaluate"),
    params:
        methods=list(CONFIG.methods),
        uncertain=CONFIG.uncertain_methods,
        ssim_window=CONFIG.evaluate.ssim_window,
        centreline=CONFIG.evaluate.centreline,
    message:
        "{wildcards.sample}: comparing the methods"
    script:
        "../../scripts/evaluate.py"
