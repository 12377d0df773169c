def sample_of(wildcards):
    return RUN.tests[wildcards.sample]


def volume_path(sample, method):
    """The final method's volume has the fixed name; the others lie beside each other."""
    if method == CONFIG.final:
        return f"{RESULTS}/{sample}/volume.ome.zarr"
    return f"{RESULTS}/{sample}/methods/{method}.ome.zarr"


def std_path(sample, method):
    """Where the standard deviation of a method's volume lies: beside the volume."""
    if method == CONFIG.final:
        return f"{RESULTS}/{sample}/uncertainty.ome.zarr"
    return f"{RESULTS}/{sample}/methods/{method}_std.ome.zarr"


def units_path(method):
    return f"{RESULTS}/{{sample}}/units/{method}-{{shard}}.zarr"


def truth_of(wildcards):
    """The ground-truth volume as an input, where the sample has one."""
    if sample_of(wildcards).ground_truth is None:
        return []
    return f"{RESULTS}/{wildcards.sample}/ground_truth.ome.zarr"


def uncertainty_of(wildcards):
    """The standard deviation of the final volume, where its method states one."""
    if CONFIG.final not in CONFIG.uncertain_methods:
        return []
    return std_path(wildcards.sample, CONFIG.final)


def prior_of(wildcards, suffix="safetensors"):
    return f"{RESULTS}/priors/{RUN.geometry_of(wildcards.sample).key}.{suffix}"


def preprocess_inputs(wildcards):
    sample = sample_of(wildcards)
    inputs = {
        "acquisition": str(sample.acquisition),
        "stage_positions": str(sample.stage_positions),
    }
    beam = file_of(sample.beam_profile)
    if beam is not None:
        inputs["beam_profile"] = str(beam)
    lateral = file_of(sample.lateral_psf)
    if lateral is not None:
        inputs["lateral_psf"] = str(lateral)
    if sample.ground_truth is not None:
        inputs["ground_truth"] = str(sample.ground_truth)
    return inputs


def beam_settings(wildcards):
    """Mention the halo only where it matters, so that a change of it repeats nothing else."""
    sample = sample_of(wildcards)
    settings = {"beam_profile": sample.beam_profile}
    if sample.lateral_psf is not None:
        settings |= {"lateral_psf": sample.lateral_psf, "halo": CONFIG.tiling.halo}
    return settings


def intensity_settings(wildcards):
    sample = sample_of(wildcards)
    return {
        "voxel_size_um": list(sample.voxel_size_um),
        "offset": sample.offset,
        "gain": sample.gain,
    }


def baseline_inputs(wildcards):
    inputs = {"projections": f"{RESULTS}/{wildcards.sample}/projections.zarr"}
    if wildcards.baseline == "variational":
        inputs["spectral"] = units_path("spectral").format(**wildcards)
    return inputs


def baseline_settings(wildcards):
    section = getattr(CONFIG, wildcards.baseline, None)
    return section.model_dump() if section else {}


def units_of(method):
    return [units_path(method).replace("{shard}", str(shard)) for shard in SHARDS]


def assembled_outputs():
    paths = [directory(volume_path("{sample}", method)) for method in CONFIG.methods]
    outputs = {"volumes": paths}
    if CONFIG.uncertain_methods:
        outputs["uncertainties"] = [
            directory(std_path("{sample}", method))
            for method in CONFIG.uncertain_methods
        ]
    return outputs


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
