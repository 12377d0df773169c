# Quick, and before anything heavy: whether an acquisition is worth it. No stage takes its record as
# an input, for other thresholds would repeat finished fits (`ancient` inputs don't help: with them,
# Snakemake 9 no longer sees changes of a job's other inputs). Where samples are to be left out,
# `preprocess` judges them itself.
rule preflight_sample:
    input:
        unpack(acquisition_inputs),
    output:
        record=f"{RESULTS}/{{sample}}/preflight.json",
    log:
        f"{RESULTS}/{{sample}}/logs/preflight_sample.log",
    benchmark:
        f"{RESULTS}/{{sample}}/benchmarks/preflight_sample.tsv"
    group:
        in_group(None)
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        lane=lane,
        mem_mb=memory_mb("preflight_sample"),
        runtime=minutes("preflight_sample"),
    params:
        beam=beam_settings,
        reading=reading_settings,
        settings=intensity_settings,
        config=preflight_settings(),
    message:
        "{wildcards.sample}: checking the acquisition before it is reconstructed"
    script:
        "../../scripts/preflight_sample.py"


rule preflight:
    input:
        records=[f"{RESULTS}/{sample}/preflight.json" for sample in RUN.tests],
    output:
        table=f"{RESULTS}/preflight.tsv",
        page=report(
            f"{RESULTS}/preflight.html",
            category="Cohort",
            caption="../report/preflight.rst",
        ),
    log:
        f"{RESULTS}/logs/preflight.log",
    benchmark:
        f"{RESULTS}/benchmarks/preflight.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    message:
        "listing what the preflight found"
    script:
        "../../scripts/preflight.py"
