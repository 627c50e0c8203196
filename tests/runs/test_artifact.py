"""Tests of the manifest of a run: every content has a place in it, under a title that makes sense in a folder."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from example_run import CLEAN, RUN_ID, attempt, file, moment, pickle_of, run_log, saved, sha256, started

from runnable_ci.runs.artifact import (
    ARTIFACT_TYPE,
    LOG_INDEX_MEDIA_TYPE,
    LOG_MEDIA_TYPE,
    OBJECT_MEDIA_TYPE,
    PACK_MEDIA_TYPE,
    RUN_LOG_MEDIA_TYPE,
    RUN_LOG_TITLE,
    SNAPSHOT_MEDIA_TYPE,
    TITLE,
    build_manifest,
    layers,
    manifest_annotations,
)
from runnable_ci.runs.document import encode
from runnable_ci.runs.events import Event, apply
from runnable_ci.runs.files.log_file import LogFile
from runnable_ci.runs.listing.summary import Summary
from runnable_ci.runs.model import FAIL, Parameter, RunLog
from runnable_ci.runs.run_identity import known_invocations, run_identity
from runnable_ci.store.target import MANIFEST_MAX_BYTES, MANIFEST_MEDIA_TYPE, Descriptor, manifest_parts


def built(log: RunLog) -> tuple[bytes, dict[str, Any], Descriptor]:
    """The manifest of a run, as bytes and parsed, and the descriptor of its run log."""
    document = encode(log)
    descriptor = Descriptor(RUN_LOG_MEDIA_TYPE, f"sha256:{hashlib.sha256(document).hexdigest()}", len(document))
    raw = build_manifest(log, descriptor)[1]
    return raw, json.loads(raw), descriptor


def of(*events: Event) -> RunLog:
    """The log of some events after a start."""
    log = RunLog(run_id=RUN_ID)
    for event in (started(1, 0), *events):
        log = apply(log, event)
    return log


def contents(log: RunLog) -> dict[str, tuple[str, str]]:
    """Title → hex digest and media type."""
    return {title: (layer.hex, layer.media_type) for title, layer in layers(log).items()}


def test_titles_and_media_types() -> None:
    """Files, output, objects, packs and code stand each in their folder; earlier versions are told apart."""
    assert contents(run_log()) == {
        "catalog/iris_logistic.png": (sha256("pixels"), "image/png"),
        "catalog/model.csv": (sha256("a better model"), "text/csv"),
        "history/fit.2/model.csv": (sha256("a model"), "text/csv"),
        "history/fit.1/model.csv": (sha256("half a model"), "text/csv"),
        "logs/load.1.log": (sha256("log"), LOG_MEDIA_TYPE),
        "logs/load.1.idx": (sha256("index"), LOG_INDEX_MEDIA_TYPE),
        "objects/X.pickle": (sha256("X of fit"), OBJECT_MEDIA_TYPE),
        "objects/load.1/X.pickle": (sha256("X of load"), OBJECT_MEDIA_TYPE),
        f"code/{sha256('snapshot')[:12]}.tar": (sha256("snapshot"), SNAPSHOT_MEDIA_TYPE),
        f"packs/{sha256('pack')[:12]}.tar": (sha256("pack"), PACK_MEDIA_TYPE),
    }


def test_every_content_is_there() -> None:
    """Whatever digest the run log names is a layer, or in a layer that is a pack."""
    log = run_log()
    found = {layer.hex for layer in layers(log).values()} | {m for pack in log.packs.values() for m in pack.members}
    wanted = {e.data_hash for s in log.steps.values() for e in s.data_catalog}
    for one in (a for s in log.steps.values() for a in s.attempts):
        wanted |= {e.data_hash for e in one.data_catalog} | {c.snapshot for c in one.code_identities if c.snapshot}
        wanted |= {p.data_hash for p in one.output_parameters.values() if p.kind == "object"}
        wanted |= {one.log.data_hash, one.log.index_hash} if one.log else set()
    assert wanted <= found


def test_an_object_that_two_steps_return() -> None:
    """Both pickles are kept: a retry of the step between needs the earlier one."""
    log = of(
        *saved("a", attempt(1, 1, output_parameters=pickle_of("X", "first"))),
        *saved("b", attempt(1, 3, output_parameters=pickle_of("X", "second"))),
    )
    assert {title: digest for title, (digest, _) in contents(log).items()} == {
        "objects/a.1/X.pickle": sha256("first"),
        "objects/X.pickle": sha256("second"),
    }


def test_an_object_of_an_earlier_attempt() -> None:
    """An attempt that succeeded keeps its object when the next one returns another."""
    log = of(
        *saved("a", attempt(1, 1, output_parameters=pickle_of("X", "first"))),
        *saved("a", attempt(2, 3, output_parameters=pickle_of("X", "second"))),
    )
    assert {title: digest for title, (digest, _) in contents(log).items()} == {
        "objects/a.1/X.pickle": sha256("first"),
        "objects/X.pickle": sha256("second"),
    }


def test_a_file_that_two_steps_put() -> None:
    """The later step's file is the one in `catalog/`, also where both are the same."""
    log = of(
        *saved("a", attempt(1, 1), file("f.csv", "same"), file("g.csv", "of a")),
        *saved("b", attempt(1, 3), file("f.csv", "same"), file("g.csv", "of b")),
    )
    assert {title: digest for title, (digest, _) in contents(log).items()} == {
        "history/a.1/f.csv": sha256("same"),
        "catalog/f.csv": sha256("same"),
        "history/a.1/g.csv": sha256("of a"),
        "catalog/g.csv": sha256("of b"),
    }


def test_what_is_not_there_has_no_title() -> None:
    """Empty output, an index that was not needed, json returns and files that were only taken are no layers."""
    silent = LogFile(data_hash=sha256(""), size=0, stdout_bytes=0, stderr_bytes=0)
    one_stream = LogFile(data_hash=sha256("out"), size=3, stdout_bytes=3, stderr_bytes=0)
    log = of(
        *saved("a", attempt(1, 1, log=silent, output_parameters={"x": Parameter.of_json(1)})),
        *saved("b", attempt(1, 3, log=one_stream), file("in.csv", "in", "get")),
    )
    assert contents(log) == {"logs/b.1.log": (sha256("out"), LOG_MEDIA_TYPE)}


def test_manifest() -> None:
    """It is an OCI artifact: our type, the empty config, the run log first, each layer with its title."""
    log = run_log()
    raw, manifest, descriptor = built(log)
    assert (manifest["schemaVersion"], manifest["mediaType"]) == (2, MANIFEST_MEDIA_TYPE)
    assert manifest["artifactType"] == ARTIFACT_TYPE == "application/vnd.runnable.run.v1+json"
    assert manifest["config"] == {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": f"sha256:{hashlib.sha256(b'{}').hexdigest()}",
        "size": 2,
        "data": "e30=",
    }
    assert build_manifest(log, descriptor)[0] == b"{}"
    assert manifest["layers"][0] == {
        "mediaType": RUN_LOG_MEDIA_TYPE,
        "digest": descriptor.digest,
        "size": descriptor.size,
        "annotations": {TITLE: RUN_LOG_TITLE},
    }
    titles = [layer["annotations"][TITLE] for layer in manifest["layers"]]
    assert titles == [RUN_LOG_TITLE, *layers(log)]
    assert len(set(titles)) == len(titles)
    whole = Descriptor(MANIFEST_MEDIA_TYPE, f"sha256:{hashlib.sha256(raw).hexdigest()}", len(raw))
    assert len(manifest_parts(raw, whole, label="memory")) == len(titles) + 1


def test_manifest_is_the_same_again() -> None:
    """The same run gives the same bytes, so that publishing it twice is one artifact."""
    assert built(run_log())[0] == built(run_log())[0]


def test_annotations() -> None:
    """A listing shows the run by its manifest's annotations, and only what there is to say."""
    assert manifest_annotations(run_log()) == {
        "org.opencontainers.image.title": RUN_ID,
        "org.opencontainers.image.created": moment(0),
        "org.opencontainers.image.revision": CLEAN.code_identifier,
        "org.opencontainers.image.source": CLEAN.code_identifier_url,
        "vnd.runnable.identity": run_identity(run_log()),
        "vnd.runnable.begun-by": "Ada",
        "vnd.runnable.invocations": known_invocations(run_log()),
        "vnd.runnable.ref": "main",
        "vnd.runnable.name": "iris",
        "vnd.runnable.status": "SUCCESS",
        "vnd.runnable.ended": moment(15),
        "vnd.runnable.seconds": "10.000",
        "vnd.runnable.attempts": "2",
        "vnd.runnable.dirty": "true",
        "vnd.runnable.metrics": '{"score": 0.6}',
        "vnd.runnable.parameters": '{"rate": 0.3}',
    }
    assert manifest_annotations(RunLog(run_id=RUN_ID)) == {
        "org.opencontainers.image.title": RUN_ID,
        "vnd.runnable.identity": run_identity(RunLog(run_id="other")),
        "vnd.runnable.status": "PROCESSING",
        "vnd.runnable.attempts": "0",
    }


def test_a_listing_knows_what_the_invocations_took() -> None:
    """Not the time between a failure and its retry; an older manifest tells from the start to the end."""
    annotations = manifest_annotations(run_log())
    assert Summary.of(RUN_ID, annotations).seconds == run_log().seconds() == 10
    assert Summary.of(RUN_ID, {**annotations, "vnd.runnable.seconds": "nan"}).seconds == 15
    del annotations["vnd.runnable.seconds"]
    assert Summary.of(RUN_ID, annotations).seconds == 15
    assert Summary.of(RUN_ID, {}).seconds is None


def test_annotations_of_a_failed_run() -> None:
    """A failed run names its failed steps."""
    found = manifest_annotations(of(*saved("a", attempt(1, 1, status=FAIL)), *saved("b", attempt(1, 3, status=FAIL))))
    assert (found["vnd.runnable.failed"], found["vnd.runnable.dirty"]) == ("a,b", "false")


def test_metrics_too_large_for_an_annotation() -> None:
    """Metrics of many kilobytes stay in the run log."""
    many = {f"m{i}": Parameter.of_json(i, "metric") for i in range(1000)}
    assert "vnd.runnable.metrics" not in manifest_annotations(
        of(*saved("a", attempt(1, 1, user_defined_metrics=many))),
    )


def test_many_files_fit_into_a_manifest() -> None:
    """2,000 small files are one pack; 2,000 large ones still are below what registries take."""
    packed = run_log(2000)
    assert len(layers(packed)) == len(layers(run_log()))
    assert len(built(packed)[0]) < 8192
    packed.packs.clear()
    raw, manifest, _ = built(packed)
    assert len(manifest["layers"]) > 2000
    assert len(raw) < MANIFEST_MAX_BYTES


def test_links_are_what_they_lead_to() -> None:
    """A plain client gets a file for a link to a file, and nothing for what only a file system has; notes say more."""
    model = file("out/v1/m.csv", "a model", mode=0o755, mtime_ns=1_500_000_000_000_000_007)
    links = {"out/m.csv": "now/m.csv", "out/now": "v1", "out/broken": "gone", "out/self": "."}
    entries = [file(name, target, kind="link", target=target) for name, target in links.items()]
    folder = file("out/empty", "", kind="folder")
    unstored = file("big.bin", "large", stored=False)
    log = of(*saved("fit", attempt(1, 1), model, *entries, folder, unstored))
    found = {title: layer for title, layer in layers(log).items() if title.startswith("catalog/")}
    assert {title: layer.hex for title, layer in found.items()} == {
        "catalog/out/v1/m.csv": sha256("a model"),
        "catalog/out/m.csv": sha256("a model"),
    }
    manifest = built(log)[1]
    notes = {layer["annotations"][TITLE]: layer["annotations"] for layer in manifest["layers"]}
    assert notes["catalog/out/v1/m.csv"] == {
        TITLE: "catalog/out/v1/m.csv",
        "vnd.runnable.mode": "0755",
        "vnd.runnable.mtime": "1500000000.000000007",
    }
    assert notes["catalog/out/m.csv"]["vnd.runnable.link"] == "now/m.csv"
    assert log.schema_version == "1"  # it is the recorder that raises it
