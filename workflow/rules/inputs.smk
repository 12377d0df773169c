ABLATION = f"{RESULTS}/ablation"
PROJECTIONS = f"{RESULTS}/{{sample}}{{part}}/projections.zip"


def sample_of(wildcards):
    return RUN.tests[wildcards.sample]


def volume_path(sample, method):
    """The final method's volume has the fixed name; the others are single files."""
    if method == CONFIG.final:
        return f"{RESULTS}/{sample}/volume.ome.zarr"
    return f"{RESULTS}/{sample}/methods/{method}.ozx"


def std_path(sample, method):
    """Where the standard deviation of a method's volume lies: beside the volume."""
    if method == CONFIG.final:
        return f"{RESULTS}/{sample}/uncertainty.ozx"
    return f"{RESULTS}/{sample}/methods/{method}_std.ozx"


def units_path(method):
    return f"{RESULTS}/{{sample}}{{part}}/units/{method}-{{shard}}.zip"


def truth_of(wildcards):
    """The ground-truth volume as an input, where the sample has one."""
    if sample_of(wildcards).ground_truth is None:
        return []
    return f"{RESULTS}/{wildcards.sample}/ground_truth.ozx"


def uncertainty_of(wildcards):
    """The standard deviation of the final volume, where its method states one."""
    if CONFIG.final not in CONFIG.uncertain_methods:
        return []
    return std_path(wildcards.sample, CONFIG.final)


def prior_of(wildcards):
    return str(RUN.prior_of(wildcards.sample))


def training_items(wildcards):
    """The simulated acquisitions of all training volumes; those of any beam are of phantoms."""
    if wildcards.geometry == ANY_BEAM:
        items = [f"phantom-{number}" for number in range(CONFIG.prior.phantoms)]
    else:
        items = RUN.training_items(wildcards.geometry)
    return [f"{RESULTS}/priors/{wildcards.geometry}/{item}" for item in items]


def training_stack(wildcards):
    """What is imaged; of a sample's own volume, that which never saw the withheld projections.

    Else a prior would know what it is checked on.
    """
    kind, name, _ = parse_item(wildcards.item)
    if kind == "train":
        train = RUN.trains[name]
        return {"volume": str(train.ground_truth)} | truth_files(train)
    if kind == "phantom":
        return {}
    sample = name.rsplit("-", 1)[0]
    kept, shards = f"{sample}/held_out", range(1)
    if RUN.why_not_held_out(sample):
        kept, shards = sample, SHARDS
    place = ("{sample}{part}", kept)
    units = units_path("inr").replace(*place)
    return {
        "projections": PROJECTIONS.replace(*place),
        "units": [units.format(shard=shard) for shard in shards],
    }


def training_source(wildcards):
    """The row of a training sample, the number of a phantom, or the view of a sample's own INR."""
    kind, name, number = parse_item(wildcards.item)
    if kind == "phantom":
        return int(name)
    if kind == "own":
        sample, axis = name.rsplit("-", 1)
        return {"name": sample, "axis": axis, "tiling": CONFIG.tiling.model_dump()}
    sample = RUN.trains[name]
    return {
        "name": sample.name,
        "voxel_size_um": list(sample.voxel_size_um),
        "offset": sample.offset,
        # What is usual is not mentioned, so that those from before the key are not made again.
        **({"number": number} if number > 1 else {}),
    }


def training_geometry(wildcards):
    if wildcards.geometry == ANY_BEAM:
        return None
    return RUN.geometry_of_prior(wildcards.geometry).as_dict()


def safeguard_inputs(wildcards):
    """What is mixed, and the same of the thinned acquisition, where there is one."""
    own = {name: units_path(name) for name in ("prior", "spectral", "inr")}
    inputs = {"projections": PROJECTIONS, **own}
    if CONFIG.refine.trust == "auto" and not RUN.why_not_held_out(wildcards.sample):
        place = ("{sample}{part}", f"{wildcards.sample}/held_out")
        inputs["acquisition"] = f"{RESULTS}/{wildcards.sample}/projections.zip"
        inputs["thinned_projections"] = PROJECTIONS.replace(*place)
        for name, path in own.items():
            inputs[f"thinned_{name}"] = path.replace(*place).format(shard=0)
    return inputs


def acquisition_inputs(wildcards):
    """All files that a sample comes with."""
    sample = sample_of(wildcards)
    inputs = {
        "acquisition": str(sample.acquisition),
        "acquisition_files": [str(path) for path in sample.acquisition_files],
    }
    if sample.stage_positions is not None:
        inputs["stage_positions"] = str(sample.stage_positions)
    beam = file_of(sample.beam_profile)
    if beam is not None:
        inputs["beam_profile"] = str(beam)
    lateral = file_of(sample.lateral_psf)
    if lateral is not None:
        inputs["lateral_psf"] = str(lateral)
    if sample.ground_truth is not None:
        inputs["ground_truth"] = str(sample.ground_truth)
        inputs |= truth_files(sample)
    if CONFIG.corrections.given_flat_field is not None:
        inputs["flat_field"] = CONFIG.corrections.given_flat_field
    return inputs


def truth_files(sample):
    """What belongs to a ground truth that lies in several files."""
    files = [str(path) for path in sample.ground_truth_files]
    return {"ground_truth_files": files} if files else {}


def flat_fields():
    """The flat fields that the run estimates, where it is to."""
    return [] if RUN.flat_fields is None else str(RUN.flat_fields)


def preprocess_inputs(wildcards):
    """What a sample comes with, and what is known from all of them."""
    shared = {} if RUN.flat_fields is None else {"flat_fields": flat_fields()}
    return acquisition_inputs(wildcards) | shared


def truth_inputs(wildcards):
    """The stack and, where the detector was estimated, the projections that say what was found."""
    sample = sample_of(wildcards)
    inputs = {"ground_truth": str(sample.ground_truth)} | truth_files(sample)
    if sample.gain == "auto":
        inputs["projections"] = f"{RESULTS}/{sample.name}/projections.zip"
    return inputs


def beam_settings(wildcards):
    """Mention the halo only where it matters, so that a change of it repeats nothing else."""
    sample = sample_of(wildcards)
    settings = {"beam_profile": sample.beam_profile}
    if sample.lateral_psf is not None:
        settings |= {"lateral_psf": sample.lateral_psf, "halo": CONFIG.tiling.halo}
    return settings


def reading_settings(wildcards):
    """Mention only what is not usual, so that nothing is repeated for a column that is new."""
    sample = sample_of(wildcards)
    frames = {} if sample.frames == "average" else {"frames": sample.frames}
    return frames | ({"overrule": True} if sample.overrule else {})


def intensity_settings(wildcards):
    sample = sample_of(wildcards)
    return {
        "voxel_size_um": list(sample.voxel_size_um),
        "offset": sample.offset,
        "gain": sample.gain,
    }


def preflight_settings():
    """What the preflight depends on; from which light on samples are left out is none of it."""
    unused = {"samples", "results", "seed", "ablation", "evaluate", "report", "prior"}
    settings = CONFIG.model_dump(exclude=unused)
    settings["preflight"].pop("stop_at")
    return settings


def baseline_inputs(wildcards):
    inputs = {"projections": PROJECTIONS.format(**wildcards)}
    if wildcards.baseline == "variational":
        inputs["spectral"] = units_path("spectral").format(**wildcards)
    return inputs


def baseline_settings(wildcards):
    section = getattr(CONFIG, wildcards.baseline, None)
    return section.model_dump() if section else {}


def tiling_of(wildcards):
    """What is left when projections are withheld is small enough for a single job."""
    shards = {"shards": 1} if wildcards.get("part") else {}
    return CONFIG.tiling.model_dump() | shards


def units_of(method):
    path = units_path(method).replace("{part}", "")
    return [path.replace("{shard}", str(shard)) for shard in SHARDS]


def all_units_of(method, wildcards):
    """What a method made of all work units of a sample, or of the part that is left of it."""
    shards = range(tiling_of(wildcards)["shards"])
    place = {"sample": wildcards.sample, "part": wildcards.part}
    return [units_path(method).format(**place, shard=shard) for shard in shards]


# The INR that is fitted while the published model is trained: of all shards.
JOINT_INR = units_path("joint_inr").replace("{shard}", "0")
IS_JOINT = CONFIG.microdiffusion.inr_training == "joint"


def training_inputs(wildcards):
    """What the published model is trained on: a fitted INR, or what one is fitted from."""
    if IS_JOINT:
        return {"spectral": all_units_of("spectral", wildcards)}
    return {"inr": all_units_of("inr", wildcards)}


def microdiffusion_settings(without=frozenset()):
    """The settings of the published scheme, which smooths no INR that is smooth already."""
    settings = CONFIG.microdiffusion.model_dump(exclude=without)
    smoothed = CONFIG.inr.neighbour_average
    return settings | {
        "neighbour_average": settings["neighbour_average"] and not smoothed
    }


def held_out_inputs(wildcards):
    """The reconstructions from which withheld projections are predicted, where there are any."""
    if RUN.why_not_held_out(wildcards.sample):
        return {"held_out_units": []}
    place = ("{sample}{part}", f"{wildcards.sample}/held_out")
    units = [units_path(method).replace(*place) for method in RUN.held_out_methods]
    return {
        "held_out_projections": PROJECTIONS.replace(*place),
        "held_out_units": [path.format(shard=0) for path in units],
    }


def assembled_outputs():
    places = [volume_path("{sample}", method) for method in CONFIG.methods]
    outputs = {"volumes": [as_output(place) for place in places]}
    if CONFIG.uncertain_methods:
        places = [std_path("{sample}", method) for method in CONFIG.uncertain_methods]
        outputs["uncertainties"] = [as_output(place) for place in places]
    return outputs


def as_output(store):
    """A store is a folder for viewers, or a single file."""
    return directory(store) if store.endswith(".zarr") else store


def prior_info_of(wildcards):
    """What is known of the prior; one from elsewhere that came without it tells it itself."""
    if "diffusion" not in CONFIG.methods:
        return []
    prior = RUN.prior_of(wildcards.sample)
    info = prior.with_suffix(".json")
    trained = info.stem in RUN.trained_priors
    return str(info if info.exists() or trained else prior)


def benchmarks_of(wildcards):
    sample = f"{RESULTS}/{wildcards.sample}"
    folder = f"{sample}/benchmarks"
    stages = {"preflight": f"{folder}/preflight_sample.tsv"}
    for stage in ("preprocess", "convert_ground_truth", "hold_out"):
        stages[stage] = f"{folder}/{stage}.tsv"
    learned = {
        "inr": "fit_inr",
        "microdiffusion": "sample_microdiffusion",
        "diffusion": "refine",
    }
    for method in CONFIG.methods:
        stage = learned.get(method, f"reconstruct_baseline-{method}")
        for shard in SHARDS:
            stages[f"{stage}-{shard}"] = f"{folder}/{stage}-{shard}.tsv"
        # Files of methods that were not ranked don't exist, and are left out.
        withheld = f"{sample}/held_out/benchmarks/{stage}-0.tsv"
        stages[f"{stage}, projections withheld"] = withheld
    if "diffusion" in CONFIG.methods:
        for shard in SHARDS:
            stages[f"safeguard-{shard}"] = f"{folder}/safeguard-{shard}.tsv"
        prior = RUN.prior_of(wildcards.sample)
        if prior.is_relative_to(f"{RESULTS}/priors"):
            stages["train_prior"] = (
                f"{RESULTS}/priors/benchmarks/train_prior-{prior.stem}.tsv"
            )
    if "microdiffusion" in CONFIG.methods:
        stage = "train_microdiffusion"
        stages[stage] = f"{folder}/{stage}.tsv"
        withheld = f"{sample}/held_out/benchmarks/{stage}.tsv"
        stages[f"{stage}, projections withheld"] = withheld
    if RUN.flat_fields is not None:
        stages["estimate_shading"] = f"{RESULTS}/benchmarks/estimate_shading.tsv"
    return stages | {
        stage: f"{folder}/{stage}.tsv" for stage in ("assemble", "validate", "evaluate")
    }


@functools.cache
def grid():
    """The configurations to compare; read where they are asked for only."""
    path = CONFIG.ablation
    if not os.path.isfile(path):
        path = f"{workflow.basedir}/../{path}"
    try:
        return load_grid(path, CONFIG)
    except InputError as error:
        raise WorkflowError(f"Nothing was run. What has to be corrected:\n{error}")


def scores_of_configurations(wildcards):
    return [f"{ABLATION}/{name}.tsv" for name in grid()]


def scores_of_point_scans(wildcards):
    simulated = [name for name, row in RUN.tests.items() if row.simulated]
    return [f"{RESULTS}/{name}/point_scans.tsv" for name in simulated]


def acquisition_files(wildcards):
    """All files of the sheet: where one is newer, every configuration is run again."""
    tests = [*RUN.tests.values()]
    files = [path for row in tests for path in (row.acquisition, row.stage_positions)]
    files += [path for row in tests for path in row.acquisition_files]
    for row in (*tests, *RUN.trains.values()):
        files += [row.ground_truth, *row.ground_truth_files]
    return [CONFIG.samples, *(str(path) for path in files if path is not None)]
