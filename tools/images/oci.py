"""An OCI image archive from folders: layers, config, manifest, index, all in one plain tar.

Nothing in it tells of the machine or the hour: the same folders give the same bytes.
Source: OCI image-spec 1.1, image-layout.md and layer.md"""
import gzip
import hashlib
import io
import json
import os
import tarfile
import time

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def compact(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def layer(root, mtime):
    """The folder as an uncompressed layer: everything is root's and of one time."""
    def plain(info):
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        info.mtime = mtime
        return info

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder, subfolders, files in os.walk(root):
            subfolders.sort()
            for name in sorted(subfolders + files):
                path = os.path.join(folder, name)
                tar.add(path, os.path.relpath(path, root), recursive=False, filter=plain)
    return out.getvalue()


class Archive:
    def __init__(self, path):
        self.tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)

    def add(self, name, data):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self.tar.addfile(info, io.BytesIO(data))

    def blob(self, media_type, data):
        """Add a blob; returns its descriptor."""
        d = digest(data)
        self.add("blobs/" + d.replace(":", "/"), data)
        return {"mediaType": media_type, "digest": d, "size": len(data)}


def write(path, name, roots, config, created):
    """Write the archive: roots are the layers' folders, lowest first; created is in seconds."""
    archive = Archive(path)
    archive.add("oci-layout", compact({"imageLayoutVersion": "1.0.0"}))
    layers, diff_ids = [], []
    for root in roots:
        tar = layer(root, created)
        diff_ids.append(digest(tar))
        layers.append(archive.blob(LAYER, gzip.compress(tar, compresslevel=6, mtime=0)))
    config = archive.blob(CONFIG, compact({
        "architecture": "amd64", "os": "linux", "config": config,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created)),
        "rootfs": {"type": "layers", "diff_ids": diff_ids}}))
    manifest = archive.blob(MANIFEST, compact({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}))
    manifest["annotations"] = {"org.opencontainers.image.ref.name": name}
    archive.add("index.json", compact({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]}))
    archive.tar.close()
