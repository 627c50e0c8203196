"""The manifest of a run as a registry takes it that refuses artifacts, or blobs beyond a size. Pure.

A run's own manifest is what the store has, and what most registries get. A derived one says in annotations what it is
derived from and what its layers are, so that it reads as the same run.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from runnable_ci.runs.artifact import ARTIFACT_TYPE, ORIGINAL_TYPE, TITLE
from runnable_ci.store.target import BLOB_MEDIA_TYPE, DIGEST, Descriptor

IMAGE_CONFIG_MEDIA_TYPE = "application/vnd.oci.image.config.v1+json"
IMAGE_LAYER_MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar"
DERIVED_FROM = "vnd.runnable.derived-from"
"""Of a derived manifest: the digest of the run's own."""
TYPE = "vnd.runnable.artifact-type"
"""Of a derived manifest: the type of the artifact that it represents."""
_WHOLE = "vnd.runnable.piece-of"
_WHOLE_SIZE = "vnd.runnable.whole-size"
_OFFSET = "vnd.runnable.piece-offset"
ImageForm = Literal["config", "layers"]
"""What is as in an image: the config alone, or the media types of the layers too."""
FORMS: Sequence[ImageForm | None] = (None, "config", "layers")
"""In the order in which they are tried: as it is, with the config of an image, as an image."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A blob that stands in a manifest by its pieces, in order."""

    blob: Descriptor
    pieces: Sequence[Descriptor]


def in_pieces(manifest: dict[str, Any], own: str, pieces: Mapping[str, Sequence[Descriptor]]) -> dict[str, Any]:
    """Return a manifest in which the layers of these digests stand by their pieces.

    A plain client gets `NAME.part-0001` and so on, which `cat` joins. `own` is the digest of the run's own manifest.
    """
    layers = [piece for layer in manifest["layers"] for piece in _pieces_of(layer, pieces.get(layer["digest"]))]
    return {**manifest, "layers": layers, "annotations": {**manifest.get("annotations", {}), DERIVED_FROM: own}}


def as_image(manifest: dict[str, Any], own: str, form: ImageForm) -> tuple[bytes, dict[str, Any]]:
    """Return an image's config and manifest, with the layers, titles and annotations of an artifact's.

    Source: OCI image-spec v1.1.1, config.md: each layer has a digest of what it unpacks to, which of bytes that nobody
    packed is their own.
    """
    layers = [_typed(layer, form) for layer in manifest["layers"]]
    rootfs = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
    config = json.dumps({"architecture": "unknown", "os": "unknown", "config": {}, "rootfs": rootfs}).encode()
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    image = {key: value for key, value in manifest.items() if key != "artifactType"} | {
        "config": {"mediaType": IMAGE_CONFIG_MEDIA_TYPE, "digest": digest, "size": len(config)},
        "layers": layers,
        "annotations": {
            **manifest.get("annotations", {}),
            DERIVED_FROM: own,
            TYPE: str(manifest.get("artifactType", "")),
        },
    }
    return config, image


def is_run(manifest: Mapping[str, Any]) -> bool:
    """Return whether a manifest is a run's, its own or one derived from it."""
    return ARTIFACT_TYPE in (manifest.get("artifactType"), (manifest.get("annotations") or {}).get(TYPE))


def original_type(layer: Descriptor) -> str:
    """Return what a layer is, whatever type it has in the manifest."""
    return layer.annotations.get(ORIGINAL_TYPE, layer.media_type)


def wholes(layers: Sequence[Descriptor]) -> dict[str, Whole]:
    """Return digest → blob for all that stand by their pieces; what does not fit together is left out."""
    found: dict[str, dict[int, Descriptor]] = defaultdict(dict)
    for layer in layers:
        offset = layer.annotations.get(_OFFSET, "")
        if _WHOLE in layer.annotations and offset.isdecimal() and len(offset) < 19:
            found[layer.annotations[_WHOLE]][int(offset)] = layer
    joined = {}
    for digest, by_offset in found.items():
        pieces = [by_offset[offset] for offset in sorted(by_offset)]
        begins = list(accumulate((piece.size for piece in pieces), initial=0))
        stated = pieces[0].annotations.get(_WHOLE_SIZE)
        if begins[:-1] == sorted(by_offset) and str(begins[-1]) == stated and DIGEST.fullmatch(digest):
            joined[digest] = Whole(Descriptor(BLOB_MEDIA_TYPE, digest, begins[-1]), pieces)
    return joined


def piece_sizes(size: int, most_bytes: int) -> list[int]:
    """Return the sizes of the pieces of a blob; it alone, where it is no larger."""
    whole, rest = divmod(size, most_bytes)
    return [most_bytes] * whole + ([rest] if rest or not whole else [])


def _pieces_of(layer: dict[str, Any], pieces: Sequence[Descriptor] | None) -> list[dict[str, Any]]:
    if not pieces:
        return [layer]
    entries, offset = [], 0
    annotations = layer.get("annotations", {})
    for number, piece in enumerate(pieces, 1):
        own = {
            TITLE: f"{annotations.get(TITLE, layer['digest'][7:19])}.part-{number:04}",
            ORIGINAL_TYPE: layer["mediaType"],
            _WHOLE: layer["digest"],
            _WHOLE_SIZE: str(layer["size"]),
            _OFFSET: str(offset),
        }
        entries.append(
            {
                "mediaType": BLOB_MEDIA_TYPE,
                "digest": piece.digest,
                "size": piece.size,
                "annotations": {**annotations, **own},
            }
        )
        offset += piece.size
    return entries


def _typed(layer: dict[str, Any], form: ImageForm) -> dict[str, Any]:
    if form == "config":
        return layer
    annotations = {ORIGINAL_TYPE: layer["mediaType"], **layer.get("annotations", {})}
    return {**layer, "mediaType": IMAGE_LAYER_MEDIA_TYPE, "annotations": annotations}
