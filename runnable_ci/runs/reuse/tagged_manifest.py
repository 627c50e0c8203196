"""A manifest under a tag that is there for what its annotations say, in the first form that a registry takes."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from runnable_ci.errors import BlobMissingError, ManifestRefusedError
from runnable_ci.runs.artifact import EMPTY, EMPTY_CONFIG
from runnable_ci.runs.remote.manifest_forms import FORMS, ImageForm, as_image
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import MANIFEST_MEDIA_TYPE, Descriptor


def tag_manifest(
    registry: Registry,
    tag: str,
    artifact_type: str,
    annotations: Mapping[str, str],
    layers: Sequence[Descriptor] = (EMPTY_CONFIG,),
) -> None:
    """Point a tag to a new manifest: an artifact, else one with the config of an image, else an image.

    Its layers must be there; some registries refuse a manifest without one. Raises `StoreError`.
    """
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_MEDIA_TYPE,
        "artifactType": artifact_type,
        "config": _json(EMPTY_CONFIG),
        "layers": [_json(layer) for layer in layers],
        "annotations": dict(annotations),
    }
    for form in FORMS:
        try:
            _tag_as(registry, tag, manifest, form)
        except ManifestRefusedError:
            if form == FORMS[-1]:
                raise
        else:
            return


def _tag_as(registry: Registry, tag: str, manifest: dict[str, Any], form: ImageForm | None) -> None:
    own = _described(json.dumps(manifest).encode())
    config, made = (EMPTY, manifest) if form is None else as_image(manifest, own.digest, form)
    raw = json.dumps(made).encode()
    try:
        registry.tag(_described(raw), tag, raw)
    except BlobMissingError:
        for blob in dict.fromkeys([EMPTY, config]):
            registry.push(_described(blob, made["config"]["mediaType"]), io.BytesIO(blob))
        registry.tag(_described(raw), tag, raw)


def _described(content: bytes, media_type: str = MANIFEST_MEDIA_TYPE) -> Descriptor:
    return Descriptor.of_hash(hashlib.sha256(content).hexdigest(), len(content), media_type)


def _json(blob: Descriptor) -> dict[str, Any]:
    return {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}
