"""From a configured place to the folder."""

from __future__ import annotations

from engine.config.edge import Directory, Place
from engine.files.folder import Folder
from engine.files.local import LocalFolder


def folder_of(place: Place) -> Folder:
    """The folder of a place. Nothing is opened before it is used; whoever asked for it closes it."""
    if isinstance(place, Directory):
        return LocalFolder(place.path)
    from engine.files.sftp import SftpFolder

    return SftpFolder(place)


def shown(place: Place) -> str:
    """A place as people write it, without its password."""
    if isinstance(place, Directory):
        return str(place.path)
    return f"sftp://{place.user}@{place.address}/{place.directory.removeprefix('/')}"
