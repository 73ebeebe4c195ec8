"""Files by their digest: on disk, or in a bucket (docs/blobs.md)."""
