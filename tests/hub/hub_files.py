"""Routes of the local Hub that move files: preupload, LFS, commit, resolve and the CDN."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from fnmatch import fnmatchcase
from urllib.parse import quote, unquote

from hub_call import Call, Reply, as_json, route
from hub_card import validate
from hub_state import Commit, HubRefusal, Repo


@route("POST", "/api/models/{id}/preupload/{x}")
def preupload(call: Call, repo_id: str, revision: str) -> Reply:
    pull, revision = call.flag("create_pr"), unquote(revision)
    repo = call.repo(repo_id, write=not pull)
    commit, data, entries = repo.head(revision), call.json(), []
    ignored = str(data.get("gitIgnore", commit.files.get(".gitignore", b"").decode())).split()
    for file in data["files"]:
        path, sample = file["path"], base64.b64decode(file.get("sample", ""))
        lfs = repo.is_lfs(path, file["size"], sample, commit.oid)
        entry = {"path": path, "uploadMode": "lfs" if lfs else "regular"}
        entry["shouldIgnore"] = any(fnmatchcase(path, pattern) for pattern in ignored)
        if path in commit.files:
            entry["oid"] = commit.etag(path)
        entries.append(entry)
    return as_json({"files": entries, "commitOid": commit.oid})


@route("POST", "/api/models/{id}/commit/{x}")
def commit(call: Call, repo_id: str, revision: str) -> Reply:
    pull, revision = call.flag("create_pr"), unquote(revision)
    repo = call.repo(repo_id, write=not pull)
    if call.user is None:
        raise HubRefusal(401, "Invalid username or password.")
    head = repo.head(revision)
    if revision not in repo.branches and not revision.startswith("refs/pr/"):
        raise HubRefusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    header, files, lfs, deleted = _operations(call.body, repo, head)
    parent = str(header.get("parentCommit") or "")
    if parent and pull:
        head = repo.head(parent)
    elif parent and not head.oid.startswith(parent):
        raise HubRefusal(412, "A commit has happened since. Please refresh and try again.")
    if "README.md" in files:
        errors, _ = validate(files["README.md"].decode(errors="replace"))
        if errors:
            raise HubRefusal(400, "Invalid metadata in README.md: " + "; ".join(errors))
    made = repo.commit(
        files,
        deleted=deleted,
        lfs=lfs,
        revision=revision,
        message=str(header["summary"]),
        description=str(header.get("description") or ""),
        author=call.user.name,
        parent=head.oid,
        pull=pull,
    )
    where = f"{call.state.url}/{repo.id}"
    answer = {"success": True, "commitOid": made.oid, "commitUrl": f"{where}/commit/{made.oid}"}
    if pull:
        answer["pullRequestUrl"] = f"{where}/discussions/{max(repo.pulls)}"
    return as_json({**answer, "hookOutput": ""})


def _operations(
    body: bytes, repo: Repo, head: Commit
) -> tuple[dict[str, object], dict[str, bytes], set[str], set[str]]:
    """The header, the files, the paths of LFS files, and the deleted paths of an NDJSON body."""
    header: dict[str, object] = {}
    files: dict[str, bytes] = {}
    lfs: set[str] = set()
    deleted: set[str] = set()
    try:
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        for line in lines:
            key, value = line["key"], line["value"]
            path = value.get("path", "")
            if key == "header":
                header = value
                continue
            _check_path(path)
            if key == "file":
                files[path] = base64.b64decode(value["content"], validate=True)
            elif key == "lfsFile":
                files[path] = repo.objects.get(value["oid"], b"")
                lfs.add(path)
                if value["oid"] not in repo.objects:
                    raise HubRefusal(400, f"LFS pointer to {value['oid']} that does not exist")
            elif key == "deletedFile" and path in head.files:
                deleted.add(path)
            elif key == "deletedFolder" and path.rstrip("/") in head.folders():
                deleted |= {p for p in head.files if p.startswith(path.rstrip("/") + "/")}
            elif key in ("deletedFile", "deletedFolder"):
                raise HubRefusal(404, "A file with this name doesn't exist", "EntryNotFound")
            else:
                raise HubRefusal(400, f"Invalid operation {key!r}")
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise HubRefusal(400, f"Invalid commit: {error}") from error
    if not header.get("summary"):
        raise HubRefusal(400, "Invalid commit: no summary")
    return header, files, lfs, deleted


def _check_path(path: str) -> None:
    parts = path.rstrip("/").split("/")
    if any(p in ("", ".", "..", ".git") for p in parts) or "\\" in path or "\0" in path:
        raise HubRefusal(400, f"Invalid path: {quote(path)}")


# --- LFS ----------------------------------------------------------------------------------------


def _signed(call: Call) -> None:
    """Check the signature of a storage address, which needs no token."""
    if call.query.get("sig") != [call.state.signature]:
        raise HubRefusal(403, "Request has no valid signature")


@route("POST", r"/{id}\.git/info/lfs/objects/batch")
def batch(call: Call, repo_id: str) -> Reply:
    state, data = call.state, call.json()
    repo = call.repo(repo_id, write="ref" in data)
    if call.user is None or not call.user.write:
        raise HubRefusal(403, "Forbidden: you must use a write token to upload to a repository.")
    fault, objects = state.take(call.request, "refuse-lfs"), []
    for requested in data["objects"]:
        oid, size = requested["oid"], requested["size"]
        entry: dict[str, object] = {"oid": oid, "size": size}
        objects.append(entry)
        if fault is not None:
            entry["error"] = {"code": fault.status, "message": "This object is refused"}
        elif oid not in repo.objects:
            parts = size > state.multipart_above and "multipart" in data.get("transfers", [])
            entry["actions"] = _actions(call, repo, oid, size, parts=bool(parts))
    return as_json({"transfer": "basic", "objects": objects})


def _actions(call: Call, repo: Repo, oid: str, size: int, *, parts: bool) -> dict[str, object]:
    state = call.state
    at = f"{state.cdn}/lfs/{repo.id}/{oid}"
    verify = {"href": f"{state.url}/api/lfs/{repo.id}/verify", "header": {}}
    if not parts:
        return {"upload": {"href": f"{at}?sig={state.signature}", "header": {}}, "verify": verify}
    count = -(-size // state.part_size)
    header = {f"{n + 1:05d}": f"{at}/{n + 1}?sig={state.signature}" for n in range(count)}
    header["chunk_size"] = str(state.part_size)
    href = f"{state.url}/api/lfs/{repo.id}/complete/{oid}?sig={state.signature}"
    return {"upload": {"href": href, "header": header}, "verify": verify}


def _refusable(call: Call) -> None:
    fault = call.state.take(call.request, "refuse-lfs")
    if fault is not None:
        raise HubRefusal(fault.status, "This object is refused")


def _stored(repo: Repo, oid: str, content: bytes) -> Reply:
    if hashlib.sha256(content).hexdigest() != oid:
        raise HubRefusal(400, "The content does not have the announced sha256")
    repo.objects[oid] = content
    return Reply(headers={"ETag": f'"{hashlib.md5(content).hexdigest()}"'})


@route("PUT", "/lfs/{id}/{x}")
def put(call: Call, repo_id: str, oid: str) -> Reply:
    _signed(call)
    _refusable(call)
    return _stored(call.state.repos[repo_id], oid, call.body)


@route("PUT", "/lfs/{id}/{x}/([0-9]+)")
def put_part(call: Call, repo_id: str, oid: str, number: str) -> Reply:
    _signed(call)
    _refusable(call)
    call.state.repos[repo_id].parts.setdefault(oid, {})[int(number)] = call.body
    return Reply(headers={"ETag": f'"{hashlib.md5(call.body).hexdigest()}"'})


@route("POST", "/api/lfs/{id}/complete/{x}")
def complete(call: Call, repo_id: str, oid: str) -> Reply:
    _signed(call)
    repo = call.state.repos[repo_id]
    parts = repo.parts.get(oid, {})
    listed = call.json()["parts"]
    content = b""
    for part in listed:
        piece = parts.get(part["partNumber"], b"")
        if part["etag"].strip('"') != hashlib.md5(piece).hexdigest():
            raise HubRefusal(400, f"Part {part['partNumber']} is not the part that was sent")
        content += piece
    _stored(repo, oid, content)
    return as_json({"success": True})


@route("POST", "/api/lfs/{id}/verify")
def verify(call: Call, repo_id: str) -> Reply:
    repo, data = call.repo(repo_id), call.json()
    _refusable(call)
    content = repo.objects.get(str(data["oid"]))
    if content is None or len(content) != data["size"]:
        raise HubRefusal(404, "The object does not exist or has another size")
    return as_json({"success": True})


# --- downloads ----------------------------------------------------------------------------------


def _resolve(call: Call, repo_id: str, revision: str, path: str) -> Reply:
    repo, path = call.repo(repo_id, files=True), unquote(path)
    commit = repo.head(unquote(revision))
    head = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
    if path not in commit.files:
        refusal = HubRefusal(404, "Entry not found", "EntryNotFound")
        refusal.headers = head
        raise refusal
    if path == "config.json":
        repo.downloads += 1
    etag, content = commit.etag(path), commit.files[path]
    if path not in commit.lfs:
        return _ranged(call, content, {**head, "ETag": f'"{etag}"'})
    where = f"{call.state.cdn}/cdn/{repo.id}/{etag}/{quote(path)}?sig={call.state.signature}"
    head |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content)), "Location": where}
    return Reply(f"Found. Redirecting to {where}".encode(), 302, head)


def _ranged(call: Call, content: bytes, headers: dict[str, str]) -> Reply:
    headers = {"Content-Type": "application/octet-stream", **headers}
    requested = re.fullmatch(r"bytes=(\d*)-(\d*)", call.request.headers.get("range", ""))
    if requested is None or not any(requested.groups()):
        return Reply(content, 200, headers, file=True)
    first, last = requested.groups()
    start = int(first) if first else max(0, len(content) - int(last))
    end = min(int(last), len(content) - 1) if first and last else len(content) - 1
    if start > end:
        raise _beyond(len(content))
    headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
    return Reply(content[start : end + 1], 206, headers, file=True)


def _beyond(size: int) -> HubRefusal:
    refusal = HubRefusal(416, "Requested range not satisfiable")
    refusal.headers = {"Content-Range": f"bytes */{size}"}
    return refusal


@route("HEAD", "/{id}/resolve/{x}/{rest}")
def head(call: Call, repo_id: str, revision: str, path: str) -> Reply:
    return _resolve(call, repo_id, revision, path)


@route("GET", "/{id}/resolve/{x}/{rest}")
def get(call: Call, repo_id: str, revision: str, path: str) -> Reply:
    return _resolve(call, repo_id, revision, path)


@route("HEAD", "/cdn/{id}/{x}/{rest}")
def cdn_head(call: Call, repo_id: str, oid: str, path: str) -> Reply:
    return cdn(call, repo_id, oid, path)


@route("GET", "/cdn/{id}/{x}/{rest}")
def cdn(call: Call, repo_id: str, oid: str, path: str) -> Reply:
    """An LFS object by its sha256; the path is only for faults and for the record of requests."""
    _signed(call)
    repo = call.state.repos.get(repo_id)
    if repo is None or oid not in repo.objects:
        raise HubRefusal(404, f"Object of {path} not found")
    return _ranged(call, repo.objects[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})
