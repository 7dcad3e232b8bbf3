"""Routes of the local Hub: users, repos, information, lists, trees, branches and tags."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, unquote

from hub_call import Call, Reply, as_json, route
from hub_card import card_tags, front_matter, validate
from hub_state import Commit, HubRefusal, Repo


def _stamp(commit: Commit) -> str:
    return commit.date.strftime("%Y-%m-%dT%H:%M:%S.000Z")


# --- users and repos ----------------------------------------------------------------------------


@route("GET", "/api/whoami-v2")
def whoami(call: Call) -> Reply:
    if call.user is None:
        raise HubRefusal(401, "Invalid username or password.")
    role = "write" if call.user.write else "read"
    listed = call.state.orgs if call.user.name == "tester" else ()
    orgs = [{"type": "org", "name": n, "fullname": n, "roleInOrg": "admin"} for n in listed]
    token = {"displayName": "test", "role": role, "createdAt": "2024-01-01T00:00:00.000Z"}
    return as_json(
        {
            "type": "user",
            "id": "0" * 24,
            "name": call.user.name,
            "fullname": call.user.name,
            "isPro": False,
            "orgs": orgs,
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


@route("POST", "/api/validate-yaml")
def validate_yaml(call: Call) -> Reply:
    errors, warnings = validate(str(call.json().get("content", "")))
    data = {
        "errors": [{"message": e} for e in errors],
        "warnings": [{"message": w} for w in warnings],
    }
    return as_json(data, 400 if errors else 200)


@route("POST", "/api/repos/create")
def create(call: Call) -> Reply:
    data = call.json()
    user = call.writer(str(data.get("organization") or call.user.name if call.user else ""))
    if data.get("type") not in (None, "model"):
        raise HubRefusal(400, "This hub holds models only")
    repo_id = f"{data.get('organization') or user.name}/{data.get('name')}"
    private = data.get("private") is True or data.get("visibility") == "private"
    repo = call.state.make(repo_id, private=private)
    return as_json({"url": f"{call.state.url}/{repo.id}", "name": repo.id, "id": "0" * 24})


@route("DELETE", "/api/repos/delete")
def delete(call: Call) -> Reply:
    data = call.json()
    owner = data.get("organization") or (call.user.name if call.user else "")
    repo = call.repo(f"{owner}/{data.get('name')}", write=True)
    del call.state.repos[repo.id]
    return as_json({})


@route("PUT", "/api/models/{id}/settings")
def settings(call: Call, repo_id: str) -> Reply:
    repo, data = call.repo(repo_id, write=True), call.json()
    if "visibility" in data or "private" in data:
        repo.private = data.get("visibility") == "private" or data.get("private") is True
    if "gated" in data:
        repo.gated = data["gated"]
    return as_json({"private": repo.private, "gated": repo.gated})


@route("GET", "/api/models/{id}/auth-check")
def auth_check(call: Call, repo_id: str) -> Reply:
    call.repo(repo_id, files=True)
    return as_json({})


# --- information --------------------------------------------------------------------------------


def _info(call: Call, repo: Repo, commit: Commit) -> dict[str, object]:
    card = front_matter(commit.files.get("README.md", b"").decode(errors="replace"))
    siblings = []
    for path in sorted(commit.files):
        sibling: dict[str, object] = {"rfilename": path}
        if call.flag("blobs"):
            entry = commit.entry(path)
            sibling |= {"size": entry["size"], "blobId": entry["oid"]}
            if path in commit.lfs:
                lfs = dict(entry["lfs"])  # type: ignore[call-overload]
                sibling["lfs"] = {"sha256": lfs.pop("oid"), **lfs}
        siblings.append(sibling)
    tags = card_tags(card)
    if any(p.endswith(".safetensors") for p in commit.files):
        tags.insert(0, "safetensors")
    data: dict[str, object] = {
        "_id": "0" * 24,
        "id": repo.id,
        "modelId": repo.id,
        "author": repo.namespace,
        "sha": commit.oid,
        "lastModified": _stamp(commit),
        "private": repo.private,
        "createdAt": repo.created.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "gated": repo.gated,
        "disabled": repo.disabled,
        "downloads": repo.downloads,
        "likes": repo.likes,
        "tags": tags,
        "siblings": siblings,
        "spaces": [],
        "usedStorage": sum(map(len, commit.files.values())),
    }
    if card:
        # a date in YAML is a date in Python; the Hub returns its text
        data["cardData"] = json.loads(json.dumps(card, default=str))
    for key in ("library_name", "pipeline_tag"):
        if isinstance(card.get(key), str):
            data[key] = card[key]
    requested = call.query.get("expand", []) + call.query.get("expand[]", [])
    return {k: v for k, v in data.items() if k in ("_id", "id", *requested)} if requested else data


@route("GET", "/api/models/{id}")
def info(call: Call, repo_id: str) -> Reply:
    repo = call.repo(repo_id)
    return as_json(_info(call, repo, repo.head()))


@route("GET", "/api/models/{id}/revision/{x}")
def info_at(call: Call, repo_id: str, revision: str) -> Reply:
    repo = call.repo(repo_id)
    return as_json(_info(call, repo, repo.head(unquote(revision))))


@route("GET", "/api/models")
def models(call: Call) -> Reply:
    query = call.query
    requested = [t for text in query.get("filter", []) for t in text.split(",") if t]
    requested += query.get("library", []) + query.get("pipeline_tag", [])
    search = query.get("search", [""])[0].lower()
    author = query.get("author", [""])[0]
    matches = []
    for repo in call.state.repos.values():
        if not call.state.may_read(repo, call.user) or repo.disabled:
            continue
        entry = _info(call, repo, repo.head())
        card = card_tags(front_matter(repo.head().files.get("README.md", b"").decode()))
        tags = {*card, *(["safetensors"] if repo.head().lfs else [])}
        if (
            tags.issuperset(requested)
            and search in repo.id.lower()
            and author in ("", repo.namespace)
        ):
            matches.append((repo, entry))
    key = query.get("sort", ["createdAt"])[0]
    order = {
        "downloads": lambda r: r.downloads,
        "likes": lambda r: r.likes,
        "lastModified": lambda r: r.head().date,
    }
    matches.sort(key=lambda pair: order.get(key, lambda r: r.created)(pair[0]), reverse=True)
    full, listed = call.flag("full"), []
    for _, entry in matches:
        hidden = set() if full or call.query.get("expand") else {"sha", "siblings", "lastModified"}
        if not (full or call.flag("cardData") or call.query.get("expand")):
            hidden |= {"cardData"}
        listed.append({k: v for k, v in entry.items() if k not in hidden})
    limit = query.get("limit")
    return call.paged(listed, int(limit[0]) if limit else None)


@route("GET", "/api/models/{id}/refs")
def refs(call: Call, repo_id: str) -> Reply:
    repo = call.repo(repo_id)

    def listed(kind: str, names: dict[str, str]) -> list[dict[str, str]]:
        return [
            {"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": oid} for n, oid in names.items()
        ]

    answer = {"branches": listed("heads", repo.branches), "tags": listed("tags", repo.tags)}
    answer["converts"] = []
    if call.flag("include_prs"):
        answer["pullRequests"] = listed("pr", {str(n): oid for n, oid in repo.pulls.items()})
    return as_json(answer)


@route("GET", "/api/models/{id}/commits/{x}")
def commits(call: Call, repo_id: str, revision: str) -> Reply:
    history = call.repo(repo_id).history(unquote(revision))
    return call.paged(
        [
            {
                "id": c.oid,
                "title": c.message,
                "message": c.description,
                "date": _stamp(c),
                "authors": [{"user": c.author}],
            }
            for c in history
        ]
    )


def _entries(commit: Commit, *, expand: bool) -> dict[str, dict[str, object]]:
    entries = {p: commit.entry(p) for p in commit.files}
    for path, oid in commit.folders().items():
        entries[path] = {"type": "directory", "oid": oid, "size": 0, "path": path}
    if expand:
        last = {"id": commit.oid, "title": commit.message, "date": _stamp(commit)}
        for entry in entries.values():
            entry["lastCommit"] = last
    return dict(sorted(entries.items()))


@route("GET", "/api/models/{id}/tree/{x}(?:/{rest})?")
def tree(call: Call, repo_id: str, revision: str, folder: str | None) -> Reply:
    commit = call.repo(repo_id).head(unquote(revision))
    entries = _entries(commit, expand=call.flag("expand"))
    under = unquote(folder or "").strip("/")
    if under and under not in commit.folders():
        raise HubRefusal(404, f"{under} does not exist on {unquote(revision)}", "EntryNotFound")
    prefix = f"{under}/" if under else ""
    listed = [
        entry
        for path, entry in entries.items()
        if path.startswith(prefix)
        and path != under
        and (call.flag("recursive") or "/" not in path.removeprefix(prefix))
    ]
    return call.paged(listed)


@route("POST", "/api/models/{id}/paths-info/{x}")
def paths_info(call: Call, repo_id: str, revision: str) -> Reply:
    commit = call.repo(repo_id).head(unquote(revision))
    if "json" in call.request.headers.get("content-type", ""):
        data = call.json()
        paths, expand = data.get("paths", []), bool(data.get("expand"))
    else:
        form = parse_qs(call.body.decode())
        paths, expand = form.get("paths", []), form.get("expand") == ["true"]
    entries = _entries(commit, expand=expand)
    return as_json([entries[p] for p in paths if p in entries])


# --- branches and tags --------------------------------------------------------------------------


@route("POST", "/api/models/{id}/branch/{x}")
def create_branch(call: Call, repo_id: str, name: str) -> Reply:
    repo, name = call.repo(repo_id, write=True), unquote(name)
    start = call.json().get("startingPoint") if call.body else None
    if name in repo.branches:
        raise HubRefusal(409, f"Reference already exists: refs/heads/{name}")
    repo.branches[name] = repo.head(str(start or "main")).oid
    return as_json({})


@route("DELETE", "/api/models/{id}/branch/{x}")
def delete_branch(call: Call, repo_id: str, name: str) -> Reply:
    repo, name = call.repo(repo_id, write=True), unquote(name)
    if name == "main":
        raise HubRefusal(403, "Cannot delete the default branch")
    if repo.branches.pop(name, None) is None:
        raise HubRefusal(404, f"Invalid rev id: refs/heads/{name}", "RevisionNotFound")
    return as_json({})


@route("POST", "/api/models/{id}/tag/{x}")
def create_tag(call: Call, repo_id: str, revision: str) -> Reply:
    repo, name = call.repo(repo_id, write=True), str(call.json().get("tag"))
    commit = repo.head(unquote(revision))
    if name in repo.tags:
        raise HubRefusal(409, f"Tag reference exists already: refs/tags/{name}")
    repo.tags[name] = commit.oid
    return as_json({})


@route("DELETE", "/api/models/{id}/tag/{x}")
def delete_tag(call: Call, repo_id: str, name: str) -> Reply:
    repo, name = call.repo(repo_id, write=True), unquote(name)
    if repo.tags.pop(name, None) is None:
        raise HubRefusal(404, f"Invalid rev id: refs/tags/{name}", "RevisionNotFound")
    return as_json({})
