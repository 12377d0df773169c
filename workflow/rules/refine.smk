# One job per training volume: on a cluster they run side by side.
rule simulate_training:
    input:
        unpack(training_stack),
    output:
        directory(f"{RESULTS}/priors/{{geometry}}/{{item}}"),
    log:
        f"{RESULTS}/priors/logs/simulate_training-{{geometry}}-{{item}}.log",
    benchmark:
        f"{RESULTS}/priors/benchmarks/simulate_training-{{geometry}}-{{item}}.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 8
    resources:
        mem_mb=memory_mb("simulate_training"),
        runtime=minutes("simulate_training"),
    params:
        source=training_source,
        geometry=training_geometry,
        spectral=CONFIG.spectral.model_dump(),
        inr=CONFIG.inr.model_dump(),
        seed=CONFIG.seed,
    message:
        "imaging {wildcards.item} with the beam of geometry {wildcards.geometry}, for the prior"
    script:
        "../../scripts/simulate_training.py"


rule train_prior:
    input:
        training_items,
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
        mem_mb=memory_mb("train_prior"),
        runtime=minutes("train_prior"),
        gpu=GPUS,
    params:
        geometry=training_geometry,
        settings=CONFIG.prior.model_dump(
            exclude={"weights", "phantoms", "acquisitions"}
        ),
        sampler=CONFIG.refine.model_dump(exclude={"trust"}),
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
        units=units_path("prior"),
    log:
        f"{RESULTS}/{{sample}}{{part}}/logs/refine-{{shard}}.log",
    benchmark:
        f"{RESULTS}/{{sample}}{{part}}/benchmarks/refine-{{shard}}.tsv"
    group:
        in_group(None)
    conda:
        "../../envs/environment.yaml"
    threads: 8
    resources:
        lane=lane,
        mem_mb=memory_mb("refine"),
        runtime=minutes("refine"),
        gpu=GPUS,
    params:
        # What is usual is not mentioned, so that samples from before the key are not drawn again.
        **(
            {"precision": CONFIG.prior.precision}
            if CONFIG.prior.precision != "auto"
            else {}
        ),
        settings=CONFIG.refine.model_dump(exclude={"trust"}),
        compiled=CONFIG.prior.compile,
        tiling=tiling_of,
        seed=CONFIG.seed,
    message:
        "{wildcards.sample}{wildcards.part}: refining with the diffusion prior, shard {wildcards.shard}"
    script:
        "../../scripts/refine.py"


rule safeguard:
    input:
        unpack(safeguard_inputs),
    output:
        units=units_path("diffusion"),
    log:
        f"{RESULTS}/{{sample}}{{part}}/logs/safeguard-{{shard}}.log",
    benchmark:
        f"{RESULTS}/{{sample}}{{part}}/benchmarks/safeguard-{{shard}}.tsv"
    group:
        in_group(safeguards)
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        lane=lane,
        mem_mb=memory_mb("safeguard"),
        runtime=minutes("safeguard"),
    params:
        settings=CONFIG.refine.model_dump(),
        tiling=tiling_of,
        thinned_tiling=CONFIG.tiling.model_dump() | {"shards": 1},
    message:
        "{wildcards.sample}{wildcards.part}: checking the prior against withheld projections, shard {wildcards.shard}"
    script:
        "../../scripts/safeguard.py"
