# All shards of a sample share one network.
rule train_microdiffusion:
    input:
        unpack(training_inputs),
        projections=PROJECTIONS,
    output:
        **({"joint_inr": JOINT_INR} if IS_JOINT else {}),
        network=f"{RESULTS}/{{sample}}{{part}}/microdiffusion.safetensors",
    log:
        f"{RESULTS}/{{sample}}{{part}}/logs/train_microdiffusion.log",
    benchmark:
        f"{RESULTS}/{{sample}}{{part}}/benchmarks/train_microdiffusion.tsv"
    group:
        in_group(None)
    conda:
        "../../envs/environment.yaml"
    threads: 8
    resources:
        lane=lane,
        mem_mb=memory_mb("train_microdiffusion"),
        runtime=minutes("train_microdiffusion"),
        gpu=GPUS,
    params:
        # What only sampling depends on trains nothing again.
        settings=microdiffusion_settings({"guidance", "sampling_steps", "eta"}),
        inr=CONFIG.inr.model_dump() if IS_JOINT else {},
        tiling=tiling_of,
        seed=CONFIG.seed,
    message:
        "{wildcards.sample}{wildcards.part}: training the published diffusion model"
    script:
        "../../scripts/train_microdiffusion.py"


rule sample_microdiffusion:
    input:
        projections=PROJECTIONS,
        inr=JOINT_INR if IS_JOINT else rules.fit_inr.output.units,
        network=rules.train_microdiffusion.output.network,
    output:
        units=units_path("microdiffusion"),
    log:
        f"{RESULTS}/{{sample}}{{part}}/logs/sample_microdiffusion-{{shard}}.log",
    benchmark:
        f"{RESULTS}/{{sample}}{{part}}/benchmarks/sample_microdiffusion-{{shard}}.tsv"
    group:
        in_group(None)
    conda:
        "../../envs/environment.yaml"
    threads: 8
    resources:
        lane=lane,
        mem_mb=memory_mb("sample_microdiffusion"),
        runtime=minutes("sample_microdiffusion"),
        gpu=GPUS,
    params:
        settings=microdiffusion_settings(),
        tiling=tiling_of,
        seed=CONFIG.seed,
    message:
        "{wildcards.sample}{wildcards.part}: sampling from the published diffusion model, shard {wildcards.shard}"
    script:
        "../../scripts/sample_microdiffusion.py"
