def prior_info_of(wildcards):
    return prior_of(wildcards, "json") if "diffusion" in CONFIG.methods else []


def benchmarks_of(wildcards):
    folder = f"{RESULTS}/{wildcards.sample}/benchmarks"
    stages = {"preprocess": f"{folder}/preprocess.tsv"}
    for method in CONFIG.methods:
        stage = {"inr": "fit_inr", "diffusion": "refine"}.get(
            method, f"reconstruct_baseline-{method}"
        )
        for shard in SHARDS:
            stages[f"{stage}-{shard}"] = f"{folder}/{stage}-{shard}.tsv"
    if "diffusion" in CONFIG.methods:
        key = RUN.geometry_of(wildcards.sample).key
        stages["train_prior"] = f"{RESULTS}/priors/benchmarks/train_prior-{key}.tsv"
    return stages | {
        stage: f"{folder}/{stage}.tsv" for stage in ("assemble", "evaluate")
    }


rule report_sample:
    input:
        volumes=[volume_path("{sample}", method) for method in CONFIG.methods],
        truth=truth_of,
        projections=rules.preprocess.output.projections,
        uncertainty=uncertainty_of,
        metrics=rules.evaluate.output.metrics,
        slices=rules.evaluate.output.slices,
        prior_info=prior_info_of,
    output:
        report=report(
            f"{RESULTS}/{{sample}}/report.html",
            category="Samples",
            labels={"sample": "{sample}"},
            caption="../report/sample.rst",
        ),
    log:
        f"{RESULTS}/{{sample}}/logs/report_sample.log",
    benchmark:
        f"{RESULTS}/{{sample}}/benchmarks/report_sample.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        methods=list(CONFIG.methods),
        final=CONFIG.final,
        settings=CONFIG.model_dump(exclude={"samples", "results"}),
        row=lambda wildcards: RUN.row_of(wildcards.sample),
        picture_pixels=CONFIG.report.picture_pixels,
        benchmarks=benchmarks_of,
    message:
        "{wildcards.sample}: writing the report"
    script:
        "../../scripts/report_sample.py"


rule report_cohort:
    input:
        reports=[f"{RESULTS}/{sample}/report.html" for sample in RUN.tests],
        metrics=[f"{RESULTS}/{sample}/metrics.tsv" for sample in RUN.tests],
    output:
        report=report(
            f"{RESULTS}/report.html",
            category="Cohort",
            caption="../report/cohort.rst",
        ),
        metrics=f"{RESULTS}/metrics.tsv",
    log:
        f"{RESULTS}/logs/report_cohort.log",
    benchmark:
        f"{RESULTS}/benchmarks/report_cohort.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        samples=list(RUN.tests),
        rejected=RUN.reasons(),
        trains=list(RUN.trains),
        results=RESULTS,
        final=CONFIG.final,
    message:
        "writing the report of all samples"
    script:
        "../../scripts/report_cohort.py"
