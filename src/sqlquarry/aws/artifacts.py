"""Open finished artifacts on S3 by their manifests, or copy them to this machine and compare them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.aws.download import MODEL_FILES, copy_here, download_files
from sqlquarry.aws.failures import aws_errors
from sqlquarry.aws.prefix import S3Prefix, StoredObject
from sqlquarry.errors import ArtifactError, CorruptArtifactError, IncompleteArtifactError, MetadataError
from sqlquarry.extras import require
from sqlquarry.files.locations import S3Location
from sqlquarry.manifests import MANIFEST, Manifest, parse_manifest, read_manifest

if TYPE_CHECKING:
    import boto3


def opened(
    location: S3Location, kind: str, *, verify: bool = False, session: boto3.Session | None = None
) -> tuple[Path | S3Location, Manifest]:
    """Open an artifact as `AdapterCheckpoint.load` and `MergedModel.load` do.

    An adapter is copied here, because it is small and every use needs its files; the weights of a model stay on S3.

    Args:
        location: the artifact's prefix.
        kind: "adapter" or "merged-model".
        verify: as `open_artifact`.
        session: a boto3 session; None uses the default credentials.

    Raises:
        ArtifactError: as `open_artifact`.
    """
    if kind == "adapter":
        directory = fetch_artifact(location, kind, session=session)
        return directory, read_manifest(directory, kind)
    return location, open_artifact(location, kind, session=session, verify=verify)


def open_artifact(
    location: S3Location, kind: str, *, session: boto3.Session | None = None, verify: bool = False
) -> Manifest:
    """Read the manifest of a finished artifact, whose files stay where they are.

    Args:
        location: the artifact's prefix.
        kind: the kind that the caller can use.
        session: a boto3 session; None uses the default credentials.
        verify: also read every file and compare its SHA-256; else only names and sizes.

    Raises:
        MissingExtraError: boto3 is not installed.
        IncompleteArtifactError: there is no manifest.
        CorruptArtifactError: the manifest is of another kind or version, or a file is missing or changed.
        ArtifactError: S3 refuses.
    """
    require("aws", f"reading {location}")
    with aws_errors(ArtifactError, f"reading {location}"):
        prefix = S3Prefix.open(location, session)
        manifest, _ = _described(prefix, kind)
        for name in manifest.files if verify else ():
            if prefix.content_sha256(name) != manifest.files[name]["sha256"]:
                raise CorruptArtifactError(
                    f"{location.uri_of(name)} differs from its SHA-256 in {MANIFEST}. Make the {kind} again."
                )
    return manifest


def fetch_artifact(location: S3Location, kind: str, *, session: boto3.Session | None = None) -> Path:
    """Copy a finished artifact into the cache, and compare every file with its SHA-256 in the manifest.

    Raises:
        ArtifactError: as `open_artifact`.
    """

    def wanted(prefix: S3Prefix) -> dict[str, StoredObject]:
        _, objects = _described(prefix, kind)
        return objects

    target = copy_here(location, ArtifactError, wanted, session=session)
    read_manifest(target, kind, verify=True)
    return target


def fetch_model(
    location: S3Location, problem: Callable[[str], Exception], *, session: boto3.Session | None = None
) -> Path:
    """Copy a model into the cache; one that has a manifest is compared with it.

    Args:
        location: its prefix.
        problem: makes an error of its message.
        session: a boto3 session; None uses the default credentials.

    Raises:
        CorruptArtifactError: a file differs from the manifest.
        Exception: what `problem` makes, if nothing is there or S3 refuses.
    """
    target = download_files(location, problem, patterns=MODEL_FILES, session=session)
    if (target / MANIFEST).is_file():
        read_manifest(target, "merged-model", verify=True)
    return target


def _described(prefix: S3Prefix, kind: str) -> tuple[Manifest, dict[str, StoredObject]]:
    """Return the manifest, and the listing of it and of all files that it names."""
    place = prefix.location
    objects = prefix.objects(deep=True)
    if MANIFEST not in objects:
        why = f"{place} has no {MANIFEST}: the stage that writes this {kind} did not finish there. Run it again."
        raise IncompleteArtifactError(why if objects else prefix.why_empty())
    try:
        content = prefix.read(MANIFEST)
    except MetadataError as error:
        raise CorruptArtifactError(f"{place.uri_of(MANIFEST)} is not a manifest ({error}).") from error
    manifest = parse_manifest(content, place.uri_of(MANIFEST), kind)
    for name, described in manifest.files.items():
        if name not in objects or objects[name].size != described["bytes"]:
            raise CorruptArtifactError(
                f"{place.uri_of(name)} is missing or has another size than in {MANIFEST}. Make the {kind} again."
            )
    return manifest, {name: objects[name] for name in (*manifest.files, MANIFEST)}
