rule report_sample:
    input:
        volumes=[volume_path("{sample}", method) for method in CONFIG.methods],
        truth=truth_of,
        projections=rules.preprocess.output.projections,
        uncertainty=uncertainty_of,
        metrics=rules.evaluate.output.metrics,
        slices=rules.evaluate.output.slices,
        sweep=rules.evaluate.output.sweep,
        shells=rules.evaluate.output.shells,
        conditions=rules.evaluate.output.conditions,
        by_projection=rules.validate.output.projections,
        by_slice=rules.validate.output.depth,
        maps=rules.validate.output.maps,
        determined=rules.validate.output.determined,
        held_out=rules.validate.output.held_out,
        prior_info=prior_info_of,
        preflight=rules.preflight_sample.output.record,
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
    group:
        in_group("after")
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        lane=lane,
        mem_mb=memory_mb("report_sample"),
        runtime=minutes("report_sample"),
    params:
        methods=list(CONFIG.methods),
        final=CONFIG.final,
        settings=CONFIG.model_dump(exclude={"samples", "results", "cluster"}),
        row=lambda wildcards: RUN.row_of(wildcards.sample),
        picture_pixels=CONFIG.report.picture_pixels,
        benchmarks=benchmarks_of,
        not_held_out=lambda wildcards: RUN.why_not_held_out(wildcards.sample),
    message:
        "{wildcards.sample}: writing the report"
    script:
        "../../scripts/report_sample.py"


rule report_cohort:
    input:
        reports=[f"{RESULTS}/{sample}/report.html" for sample in RUN.tests],
        metrics=[f"{RESULTS}/{sample}/metrics.tsv" for sample in RUN.tests],
        flat_fields=flat_fields(),
    output:
        report=report(
            f"{RESULTS}/report.html",
            category="Cohort",
            labels={"file": "page of all samples"},
            caption="../report/cohort.rst",
        ),
        metrics=report(
            f"{RESULTS}/metrics.tsv",
            category="Cohort",
            labels={"file": "all scores"},
            caption="../report/metrics.rst",
        ),
        table=report(
            f"{RESULTS}/report.csv",
            category="Cohort",
            labels={"file": "one line per sample"},
            caption="../report/samples.rst",
        ),
        comparisons=report(
            f"{RESULTS}/report_comparisons.csv",
            category="Cohort",
            labels={"file": "paired comparisons of methods"},
            caption="../report/comparisons.rst",
        ),
        multiqc=[
            f"{RESULTS}/multiqc/besselflow_general_mqc.json",
            f"{RESULTS}/multiqc/besselflow_samples_mqc.json",
            f"{RESULTS}/multiqc/besselflow_psnr_mqc.tsv",
        ],
    log:
        f"{RESULTS}/logs/report_cohort.log",
    benchmark:
        f"{RESULTS}/benchmarks/report_cohort.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        samples=list(RUN.tests),
        rejected=RUN.reasons(),
        trains=list(RUN.trains),
        results=subpath(output.report, parent=True),
        final=CONFIG.final,
        extras=RUN.extras,
    message:
        "writing the report of all samples"
    script:
        "../../scripts/report_cohort.py"
