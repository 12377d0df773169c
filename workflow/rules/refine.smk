rule train_prior:
    input:
        volumes=[str(sample.ground_truth) for sample in RUN.trains.values()],
    output:
        prior=f"{RESULTS}/priors/{{geometry}}.safetensors",
        info=f"{RESULTS}/priors/{{geometry}}.json",
    log:
        f"{RESULTS}/priors/logs/train_prior-{{geometry}}.log",
    benchmark:
        f"{RESULTS}/priors/benchmarks/train_prior-{{geometry}}.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 6000 * attempt,
        runtime=lambda wildcards, attempt: 480 * attempt,
    params:
        rows=[
            {
                "name": sample.name,
                "voxel_size_um": list(sample.voxel_size_um),
                "offset": sample.offset,
            }
            for sample in RUN.trains.values()
        ],
        geometry=lambda wildcards: RUN.geometry_of_key(wildcards.geometry).as_dict(),
        settings=CONFIG.prior.model_dump(),
        spectral=CONFIG.spectral.model_dump(),
        seed=CONFIG.seed,
    message:
        "training the diffusion prior for geometry {wildcards.geometry}"
    script:
        "../../scripts/train_prior.py"


rule refine:
    input:
        projections=PROJECTIONS,
        spectral=units_path("spectral"),
        inr=rules.fit_inr.output.units,
        prior=prior_of,
    output:
        units=directory(units_path("diffusion")),
    log:
        f"{RESULTS}/{{sample}}{{part}}/logs/refine-{{shard}}.log",
    benchmark:
        f"{RESULTS}/{{sample}}{{part}}/benchmarks/refine-{{shard}}.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 6000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        settings=CONFIG.refine.model_dump(),
        tiling=tiling_of,
        seed=CONFIG.seed,
    message:
        "{wildcards.sample}{wildcards.part}: refining with the diffusion prior, shard {wildcards.shard}"
    script:
        "../../scripts/refine.py"
