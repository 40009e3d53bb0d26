"""`modicum compress` and `modicum decompress`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import modicum as md
from modicum_algorithms.vae.codec import require_constriction
from modicum_algorithms.vae.config import CoderMode, CoderSettings

_MODEL_HELP = (
    "Folder of a saved model, or a run folder: its first finished trial with a checkpoint."
)
_DEFAULTS = CoderSettings()


def compress(
    images: Annotated[
        Path,
        typer.Argument(
            help="Folder of PNG files, .npy, .npz or idx file (.gz or not).", show_default=False
        ),
    ],
    model: Annotated[str, typer.Option(help=_MODEL_HELP, show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.", show_default=False)],
    mode: Annotated[
        str,
        typer.Option(
            help="portable: decodes on every machine; pinned: needs the same version of torch and "
            "kind of CPU, and is verified at once."
        ),
    ] = _DEFAULTS.mode,
    inference_steps: Annotated[
        int,
        typer.Option(help="Steps that fit each posterior; more than 0 needs pinned.", min=0),
    ] = _DEFAULTS.inference_steps,
    inference_learning_rate: Annotated[
        float, typer.Option(help="Adam's learning rate in these steps.")
    ] = _DEFAULTS.inference_learning_rate,
    embed_model: Annotated[
        bool, typer.Option("--embed-model", help="Put the model into the file.")
    ] = False,
    batch_size: Annotated[
        int, typer.Option(help="Images that pass through the networks at once.", min=1)
    ] = _DEFAULTS.coder_batch,
    chunk_images: Annotated[
        int | None,
        typer.Option(
            help="Images that are coded together; as many as fit well in memory if left out.",
            min=1,
            show_default=False,
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Decode everything again before the file is closed.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if it exists.")
    ] = False,
) -> None:
    """Compress images without loss, with a VAE and bits back."""
    md.require_choice("--mode", mode, CoderMode)
    settings = md.validated(
        CoderSettings,
        {
            "mode": mode,
            "inference_steps": inference_steps,
            "inference_learning_rate": inference_learning_rate,
            "coder_batch": batch_size,
        },
    )
    require_constriction("compress")
    from modicum_algorithms.vae.codec.compress import compress_images
    from modicum_algorithms.vae.saved_models import find_model, load_vae

    report = compress_images(
        md.data.open_images(images, field="images"),
        load_vae(find_model(model, "--model"), "--model"),
        out,
        settings=settings,
        chunk_images=chunk_images,
        embed_model=embed_model,
        verify=verify,
        overwrite=overwrite,
    )
    print(f"images: {report.images}")
    print(f"bytes: {report.bytes}" + (", model included" if report.embedded else ""))
    print(
        f"bits per dimension: {report.bits_per_dimension:.4f} "
        f"(all of the file; {report.start_bits:.0f} bits to start with)"
    )
    print(f"seconds: {report.seconds:.1f} ({report.images_per_second:.0f} images/s)")
    print(f"file: {out}")


def decompress(
    file: Annotated[Path, typer.Argument(help="Written by modicum compress.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder to write, new or empty: PNG files if PNG files were compressed, else "
            "images.npy.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help=f"{_MODEL_HELP} May be left out if the file has it embedded."),
    ] = None,
    image_format: Annotated[
        str | None,
        typer.Option("--format", help="png or npy, instead of the format that was compressed."),
    ] = None,
) -> None:
    """Restore exactly the images of a file written by modicum compress, or none."""
    if image_format not in {None, "png", "npy"}:
        raise md.InputError(f"--format: must be png or npy, got {image_format!r}")
    require_constriction("decompress")
    from modicum_algorithms.vae.codec.decompress import decompress_file
    from modicum_algorithms.vae.saved_models import find_model, load_vae

    report = decompress_file(
        file,
        out,
        None if model is None else load_vae(find_model(model, "--model"), "--model"),
        image_format=image_format,  # type: ignore[arg-type]  # Checked above.
    )
    print(f"images: {report.images} ({report.format})")
    print(f"seconds: {report.seconds:.1f} ({report.images_per_second:.0f} images/s)")
    print(f"folder: {out}")
