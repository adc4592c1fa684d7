"""`pointillist lab certify`: the share of pictures whose label no sticker changes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli.code import AllowCode
from infra.cli.lab.shared import (
    BundleOption,
    Data,
    Device,
    Images,
    JsonFile,
    bundle_folder,
    chosen,
    lab_app,
    lab_extra,
    print_figures,
    read_sample,
    require_folder,
    require_writable,
    torch_device,
    write_json,
)
from infra.cli.progress import progress_bar


@lab_app.command()
def certify(
    bundle: BundleOption,
    data: Data,
    json: JsonFile,
    patch: Annotated[
        list[str], typer.Option(help="Size of the patch in pixels, SIDE or HEIGHTxWIDTH. Several sizes give a curve.")
    ],
    images: Images = None,
    windows: Annotated[int, typer.Option(help="Maximum number of windows along a side.", min=1)] = 6,
    fill: Annotated[
        str,
        typer.Option(
            help="Filling of the masked windows: restorer (reconstruction network), plate (thin plate) or grey."
        ),
    ] = "restorer",
    backend: Annotated[
        str, typer.Option(help="Runtime of the networks: torch, or auto, which chooses as a processor does.")
    ] = "torch",
    runs: Annotated[
        Path, typer.Option(help="Folder of the finished pictures' results, from which the same command resumes.")
    ] = Path("runs/certify"),
    device: Device = "auto",
    allow_code: AllowCode = False,
) -> None:
    """Measure certified accuracy: pictures whose true label no adversarial patch of this size changes, at any place.

    `certified` is the share of pictures with the true label under every pair of masked windows. `clean` is the accuracy
    of double masking, and `passes` the mean number of passes that a picture takes. Shares come with Wilson intervals of
    95 %. The first --patch gives the figures, all sizes together the curve. The same command resumes a stopped run, if
    libraries and backend are the same.
    """
    with lab_extra():
        import torch

        from lab.cache import Cache, digest, source_digest
        from lab.certificates.measure import FILLS, Fill, check_patch, patch_of
        from lab.certificates.parts import measure_in_parts
        from lab.provenance import made_by
        from processors.bundle import load_bundle
        from processors.device.backends.choice_cache import machine_state
        from processors.device.backends.choose import BackendRequest
        from processors.device.backends.contract import runtime_of
        from processors.device.backends.engines import engines
        from processors.pipeline import Pipeline

        require_writable(json)
        require_folder(runs, "--runs")
        way: Fill = chosen(fill, *FILLS, option="--fill")
        fast = chosen(backend, "torch", "auto", option="--backend") == "auto"
        sizes = [patch_of(each) for each in patch]
        folder = bundle_folder(bundle)
        network = load_bundle(folder, torch_device(device))
        pictures = read_sample(data, len(network.settings.classes), images)
        for size in sizes:
            check_patch(pictures, size)
        if fast and network.device.type == "cpu":
            pipeline, found_engines = engines(network, BackendRequest())
            runtime = repr(found_engines.runs)
        else:
            pipeline, runtime = Pipeline(network), f"{runtime_of(network.network)} on {network.device.type}"
        cache = Cache(runs / folder.resolve().name)
        # Another runtime, library or processor may round a label to the other side.
        made_from = digest(made_by("lab.certificates.parts"), source_digest(folder), runtime, machine_state())
        curve = []
        with progress_bar("certify", len(pictures) * len(sizes)) as advance:
            for rows, columns in sizes:
                found = measure_in_parts(
                    pipeline, pictures, (rows, columns), cache, made_from,
                    across=windows, fill=way, advance=advance,
                )  # fmt: skip
                curve.append({"patch": f"{rows}x{columns}", **found.figures()})
    settings = {
        "bundle": network.model_id, "data": str(data), "images": len(pictures), "windows": windows, "fill": way,
        "backend": backend, "device": str(network.device), "threads": torch.get_num_threads(),
    }  # fmt: skip
    write_json(json, curve[0] | {"curve": curve, "settings": settings})
    for each in curve:
        print_figures(f"{network.model_id}, sticker {each['patch']}", each)
