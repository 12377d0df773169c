# Each configuration is a run of this workflow by itself, whose jobs go where those of this run go.
# It claims more threads than any machine has: one configuration after the other, with all cores.
rule run_configuration:
    input:
        acquisition_files,
    output:
        scores=f"{ABLATION}/{{configuration}}.tsv",
    log:
        f"{RESULTS}/logs/run_configuration-{{configuration}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/run_configuration-{{configuration}}.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 10000
    resources:
        mem_mb=500,
        runtime=10000,
    params:
        settings=lambda wildcards: grid()[wildcards.configuration].config.model_dump(),
    message:
        "running the configuration {wildcards.configuration}"
    script:
        "../../scripts/run_configuration.py"


# What the same microscope time would have given with a point scan: known where the acquisition was
# computed from its ground truth.
rule scan_points:
    input:
        projections=rules.preprocess.output.projections,
        truth=rules.convert_ground_truth.output.truth,
    output:
        scores=f"{RESULTS}/{{sample}}/point_scans.tsv",
    log:
        f"{RESULTS}/{{sample}}/logs/scan_points.log",
    benchmark:
        f"{RESULTS}/{{sample}}/benchmarks/scan_points.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=memory_mb("scan_points"),
        runtime=minutes("scan_points"),
    params:
        ssim_window=CONFIG.evaluate.ssim_window,
        seed=CONFIG.seed,
    message:
        "{wildcards.sample}: scanning the ground truth point by point in the same time"
    script:
        "../../scripts/scan_points.py"


rule ablation:
    input:
        scores=scores_of_configurations,
        scans=scores_of_point_scans,
    output:
        table=f"{ABLATION}/table.csv",
        page=report(
            f"{ABLATION}/table.html",
            category="Ablation",
            caption="../report/ablation.rst",
        ),
        plot=f"{ABLATION}/quality.png",
    log:
        f"{RESULTS}/logs/ablation.log",
    benchmark:
        f"{RESULTS}/benchmarks/ablation.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        variants=lambda wildcards: {
            name: {"changes": variant.changes, "method": variant.config.final}
            for name, variant in grid().items()
        },
        steps_um=lambda wildcards: RUN.steps_um,
        beams=lambda wildcards: RUN.beams,
    message:
        "comparing the configurations"
    script:
        "../../scripts/ablation.py"
