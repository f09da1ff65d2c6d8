"""A stand-in for W&B's server on the loopback: it remembers runs and views, and gives them back."""

import contextlib
import gzip
import http.server
import json
import re
import sys
import threading
import time

KEY = "0123456789abcdef0123456789abcdef01234567"


class Server(http.server.ThreadingHTTPServer):
    """Serves from its making until `stop`.

    Attributes:
        received: Path and body of each POST.
        runs: What is known of each run, by its id.
        views: Saved workspaces.
        artifacts: What was asked for each artifact that was made.
        page: Runs in a page of an answer, at most.
        stops: Whether runs are asked to stop.
        drip: Seconds from each byte of an answer to the next.
    """

    daemon_threads = True

    def __init__(self, status: int = 200, page: int = 1000) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = status
        self.page = page
        self.stops = False
        self.drip = 0.0
        self.received: list[tuple[str, str]] = []
        self.runs: dict[str, dict] = {}
        self.views: list[dict] = []
        self.artifacts: list[dict] = []
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        # W&B closes what it does not need any more.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def query(self, query: str, variables: dict) -> dict:
        """Answer a GraphQL operation."""
        name = re.search(r"(?:query|mutation)\s+(\w+)", query)
        match name[1] if name else "":
            case "UpsertBucket":
                return self.upsert(variables)
            case "GetProjects":
                project = {"id": "p", "entityName": "me", "createdAt": "", "isBenchmark": False}
                names = sorted({run["project"] for run in self.runs.values()})
                edges = [{"node": {**project, "name": name, "user": None}} for name in names]
                page = {"endCursor": None, "hasNextPage": False}
                return {"models": {"edges": edges, "pageInfo": page}}
            case "ProjectInternalId":
                return {"project": {"id": "p", "internalId": "UHJvamVjdEludGVybmFsSWQ6MQ=="}}
            case "upsertView":
                self.views.append(variables)
                view = {"id": "dmlldw==", "spec": variables["spec"], "name": variables["name"]}
                return {"upsertView": {"view": view, "inserted": True}}
            case "UpsertView2":
                self.views.append(variables)
                view = {"id": "dmlldw==", "name": variables.get("name")}
                return {"upsertView": {"view": view, "inserted": True}}
            case "CreateRunFiles":
                names = variables.get("files", [])
                files = [{"name": n, "uploadUrl": f"{self.url}/up/{n}"} for n in names]
                return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
            case "ArtifactType":
                return {"project": None}
            case "CreateArtifact":
                return self.artifact(variables)
            case "CreateArtifactManifest" | "UpdateArtifactManifest":
                file = {"id": "f", "uploadUrl": f"{self.url}/up/m", "uploadHeaders": []}
                manifest = {"artifactManifest": {"id": "m", "file": file}}
                return {"createArtifactManifest": manifest, "updateArtifactManifest": manifest}
            case "CreateArtifactFiles":
                nodes = [
                    {
                        "storagePath": spec["name"],
                        "uploadUrl": f"{self.url}/up/{spec['name']}",
                        "uploadHeaders": [],
                        "uploadMultipartUrls": None,
                        "artifact": {"id": "art"},
                    }
                    for spec in variables["input"]["artifactFiles"]
                ]
                return {"createArtifactFiles": {"files": {"edges": [{"node": n} for n in nodes]}}}
            case "CommitArtifact":
                return {"commitArtifact": {"artifact": {"id": "art", "digest": "d"}}}
        if "viewer" in query:
            viewer = {"id": "u", "username": "me", "entity": "me", "flags": "{}", "admin": False}
            return {"viewer": {**viewer, "teams": {"edges": []}, "apiKeys": {"edges": []}}}
        if "runs(" in query:
            return self.listed(variables)
        return {}

    def artifact(self, variables: dict) -> dict:
        self.artifacts.append(variables["input"])
        made = {"id": "art", "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": made}}

    def upsert(self, variables: dict) -> dict:
        run = self.runs.setdefault(variables["name"], {"config": {}, "summary": {}, "history": []})
        # A later upsert tells of changes alone.
        given = ("displayName", "groupName", "jobType", "tags", "project")
        run.update({key: variables[key] for key in given if variables.get(key) is not None})
        run["config"] |= json.loads(variables.get("config") or "{}")
        project = {"id": "p", "name": run.get("project"), "entity": {"id": "e", "name": "me"}}
        bucket = {
            "id": "b",
            "name": variables["name"],
            "displayName": run.get("displayName"),
            "description": "",
            "config": json.dumps(run["config"]),
            "sweepName": None,
            "project": project,
            "historyLineCount": 0,
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def stream(self, run_id: str, content: dict) -> None:
        """What a run logs, line by line of its files."""
        run = self.runs.setdefault(run_id, {"config": {}, "summary": {}, "history": []})
        for name, chunk in (content.get("files") or {}).items():
            lines = [json.loads(line) for line in chunk.get("content", [])]
            if name == "wandb-history.jsonl":
                run["history"].extend(lines)
            elif name == "wandb-summary.json" and lines:
                run["summary"] = lines[-1]
        if "exitcode" in content:
            run["state"] = "failed" if content["exitcode"] else "finished"

    def listed(self, variables: dict) -> dict:
        mine = {k: v for k, v in self.runs.items() if v.get("project") == variables["project"]}
        if not mine:
            return {"project": None}
        names = list(mine)
        begin = int(variables.get("cursor") or 0)
        end = begin + min(self.page, variables.get("perPage") or self.page)
        edges = [
            {"node": self.node(name, mine[name]), "cursor": str(begin + place + 1)}
            for place, name in enumerate(names[begin:end])
        ]
        more = {"endCursor": str(end), "hasNextPage": end < len(names)}
        runs = {"totalCount": len(names), "edges": edges, "pageInfo": more}
        project = {"internalId": "1", "runCount": len(names), "readOnly": False, "runs": runs}
        return {"project": project}

    @staticmethod
    def node(name: str, run: dict) -> dict:
        now = "2026-01-01T00:00:00"
        return {
            "id": "b",
            "projectId": "1",
            "name": name,
            "displayName": run.get("displayName"),
            "state": run.get("state", "running"),
            "group": run.get("groupName"),
            "jobType": run.get("jobType"),
            "commit": None,
            "readOnly": False,
            "createdAt": now,
            "heartbeatAt": now,
            "description": "",
            "notes": "",
            "tags": run.get("tags") or [],
            "historyLineCount": len(run["history"]),
            "user": {"name": "me", "username": "me"},
            "historyKeys": {},
            "sweepName": None,
            "config": json.dumps(run["config"]),
            "systemMetrics": "{}",
            "summaryMetrics": json.dumps(run["summary"]),
        }


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments) -> None: ...

    def body(self) -> str:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        return content.decode(errors="replace")

    def do_POST(self) -> None:
        body = self.body()
        answer: dict = {"exitcode": None, "limits": {}, "stopped": self.server.stops}
        with self.server.lock:
            self.server.received.append((self.path, body))
            if self.path.endswith("/graphql"):
                request = json.loads(body)
                variables = request.get("variables") or {}
                answer = {"data": self.server.query(request["query"], variables)}
            elif self.path.endswith("/file_stream"):
                self.server.stream(self.path.split("/")[-2], json.loads(body))
        self.answer(answer)

    def do_GET(self) -> None:
        self.answer({})

    def do_PUT(self) -> None:
        self.body()
        self.answer({})

    def answer(self, content: dict) -> None:
        text = json.dumps(content).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if not self.server.drip:
            self.wfile.write(text)
            return
        # Whoever waits for it may have gone.
        with contextlib.suppress(OSError):
            for byte in text:
                self.wfile.write(bytes([byte]))
                time.sleep(self.server.drip)
