"""Where a database may lie."""

from pathlib import Path

import pytest

from botapi.store import sqlite_files
from botapi.store.protocol import StoreError

MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:40 / /srv rw - nfs4 server:/export rw
31 30 0:41 / /srv/local rw - xfs /dev/vdb rw
32 22 0:42 / /mnt/my\\040files rw - fuse.sshfs me@host: rw
"""


@pytest.mark.parametrize(
    ("folder", "file_system"),
    [
        ("/data", "ext4"),
        ("/srv", "nfs4"),
        ("/srv/a/b", "nfs4"),
        ("/srv/local/a", "xfs"),
        ("/srvother", "ext4"),
        ("/mnt/my files/a", "fuse.sshfs"),
    ],
)
def test_file_system_is_that_of_the_nearest_mount(folder, file_system):
    assert sqlite_files.file_system_of(Path(folder), MOUNTS) == file_system


@pytest.mark.parametrize("folder", ["/srv/a", "/mnt/my files"])
def test_network_file_system_is_refused_in_one_line(folder):
    with pytest.raises(StoreError, match="a network file system") as caught:
        sqlite_files.refuse_network(Path(folder), MOUNTS)
    assert "\n" not in str(caught.value)


def test_local_file_system_is_accepted():
    sqlite_files.refuse_network(Path("/srv/local"), MOUNTS)
