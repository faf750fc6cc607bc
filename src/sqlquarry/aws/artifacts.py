"""Open finished artifacts on S3 by their manifests, or copy them to this machine and verify them."""

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
    """Open an artifact for `AdapterCheckpoint.load` and `MergedModel.load`, and return its location and manifest.

    An adapter is copied to this machine, because it is small and every use needs its files. A model's weights stay on
    S3.

    Args:
        location: prefix of the artifact.
        kind: "adapter" or "merged-model".
        verify: as in `open_artifact`.
        session: boto3 session. None uses the default credentials.

    Raises:
        ArtifactError: as in `open_artifact`.
    """
    if kind == "adapter":
        directory = fetch_artifact(location, kind, session=session)
        return directory, read_manifest(directory, kind)
    return location, open_artifact(location, kind, session=session, verify=verify)


def open_artifact(
    location: S3Location, kind: str, *, session: boto3.Session | None = None, verify: bool = False
) -> Manifest:
    """Read the manifest of a finished artifact without copying its files.

    Args:
        location: prefix of the artifact.
        kind: required kind of artifact.
        session: boto3 session. None uses the default credentials.
        verify: also read every file and compare its SHA-256. Otherwise only names and sizes are compared.

    Raises:
        MissingExtraError: boto3 is not installed.
        IncompleteArtifactError: there is no manifest.
        CorruptArtifactError: the manifest has another kind or version, or a file is missing or changed.
        ArtifactError: S3 refuses a request.
    """
    require("aws", f"reading {location}")
    with aws_errors(ArtifactError, f"reading {location}"):
        prefix = S3Prefix.open(location, session)
        manifest, _ = _described(prefix, kind)
        for name in manifest.files if verify else ():
            if prefix.content_sha256(name) != manifest.files[name]["sha256"]:
                raise CorruptArtifactError(
                    f"{location.uri_of(name)} does not match its SHA-256 in {MANIFEST}. Create the {kind} again."
                )
    return manifest


def fetch_artifact(location: S3Location, kind: str, *, session: boto3.Session | None = None) -> Path:
    """Copy a finished artifact into the cache and compare every file with its SHA-256 in the manifest.

    Raises:
        ArtifactError: as in `open_artifact`.
    """

    def wanted(prefix: S3Prefix) -> dict[str, StoredObject]:
        _, objects = _described(prefix, kind)
        return objects

    target = copy_here(location, ArtifactError, wanted, selection=MANIFEST, session=session)
    read_manifest(target, kind, verify=True)
    return target


def fetch_model(
    location: S3Location, problem: Callable[[str], Exception], *, session: boto3.Session | None = None
) -> Path:
    """Copy a model into the cache. If the model has a manifest, compare the files with it.

    Args:
        location: prefix of the model.
        problem: creates an error from a message.
        session: boto3 session. None uses the default credentials.

    Raises:
        CorruptArtifactError: a file differs from the manifest.
        Exception: the error that `problem` creates, if there are no files or S3 refuses a request.
    """
    target = download_files(location, problem, patterns=MODEL_FILES, session=session)
    if (target / MANIFEST).is_file():
        read_manifest(target, "merged-model", verify=True)
    return target


def _described(prefix: S3Prefix, kind: str) -> tuple[Manifest, dict[str, StoredObject]]:
    """Return the manifest, and the listed objects of the manifest and all its files."""
    location = prefix.location
    objects = prefix.objects(deep=True)
    if MANIFEST not in objects:
        why = (
            f"{location} has no {MANIFEST}, so the stage that writes this {kind} did not finish. Run that stage again."
        )
        raise IncompleteArtifactError(why if objects else prefix.why_empty())
    try:
        content = prefix.read(MANIFEST)
    except MetadataError as error:
        raise CorruptArtifactError(
            f"{location.uri_of(MANIFEST)} is not a valid manifest: {error}. Create the {kind} again."
        ) from error
    manifest = parse_manifest(content, location.uri_of(MANIFEST), kind)
    for name, described in manifest.files.items():
        if name not in objects or objects[name].size != described["bytes"]:
            raise CorruptArtifactError(
                f"{location.uri_of(name)} is missing or does not have the size in {MANIFEST}. Create the {kind} again."
            )
    return manifest, {name: objects[name] for name in (*manifest.files, MANIFEST)}
