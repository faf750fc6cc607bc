"""A web page of another origin in a real browser can neither read nor change anything in the emulator."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from programs import chromium
from sqlquarry.emulator import LocalAWS
from sqlquarry.emulator.moto import server

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP rebound.example 127.0.0.1",
)
# The page tries every way to send a request, to each host name that leads to the emulator, and reports the results to
# its own server. A page cannot read "opaque" answers.
PAGE = """<!doctype html><title>page</title><body><script>
const job = JSON.stringify(JOB);
const form = (url, fields, enctype) => new Promise(done => {
  const frame = document.createElement("iframe"), form = document.createElement("form");
  frame.name = form.target = "f" + Math.random();
  Object.assign(form, {action: url, method: "POST", enctype});
  for (const [name, value] of Object.entries(fields)) form.append(Object.assign(
    document.createElement("input"), {name, value}));
  document.body.append(frame, form);
  setTimeout(() => { frame.onload = () => done("sent"); form.submit(); });
});
const element = (tag, url) => new Promise(done => document.body.append(Object.assign(document.createElement(tag),
  {src: url, onload: () => done("loaded"), onerror: () => done("failed")})));
const text = async (url, options) => { const answer = await fetch(url, options);
  return answer.type == "opaque" ? "opaque" : "READ " + answer.status + await answer.text(); };
const urlencoded = "application/x-www-form-urlencoded";
const amz = {"X-Amz-Target": "SageMaker.CreateTrainingJob", "Content-Type": "application/x-amz-json-1.1",
  "Authorization": "AWS4-HMAC-SHA256 Credential=AKIA/20261130/us-east-1/sagemaker/aws4_request, " +
    "SignedHeaders=host, Signature=" + "0".repeat(64)};
const plain = {method: "POST", mode: "no-cors", headers: {"Content-Type": "text/plain"}, body: job};
const socket = url => new Promise(done => { const made = new WebSocket(url.replace("http", "ws"));
  made.onopen = () => done("OPEN"); made.onerror = () => done("failed"); });
const ways = {
  simple: base => text(base + "/", plain),
  target: base => text(base + "/?X-Amz-Target=SageMaker.CreateTrainingJob", plain),
  preflighted: base => text(base + "/", {method: "POST", headers: amz, body: job}),
  credentials: base => text(base + "/", {method: "POST", headers: amz, body: job, credentials: "include"}),
  put: base => text(base + "/stolen-bucket", {method: "PUT"}),
  read: base => text(base + "/moto-api/data.json"),
  reset: base => text(base + "/moto-api/reset", {method: "POST", mode: "no-cors"}),
  resetForm: base => form(base + "/moto-api/reset", {}, urlencoded),
  user: base => form(base + "/", {Action: "CreateUser", UserName: "page", Version: "2010-05-08"}, urlencoded),
  upload: base => form(base + "/BUCKET", {key: "page", file: "x"}, "multipart/form-data"),
  beacon: async base => navigator.sendBeacon(base + "/moto-api/reset", "x"),
  image: base => element("img", base + "/moto-api/data.json"),
  script: base => element("script", base + "/BUCKET/script.js"),
  frame: base => element("iframe", base + "/moto-api/"),
  socket,
};
(async () => {
  const said = {};
  for (const base of BASES) for (const [name, way] of Object.entries(ways))
    said[name + " " + base] = await Promise.race([way(base).catch(error => "error " + error),
      new Promise(done => setTimeout(() => done("no answer"), 3000))]);
  said["presigned image"] = await element("img", "PRESIGNED");
  said["presigned fetch"] = await text("PRESIGNED").catch(error => "error " + error);
  await fetch("/said", {method: "POST", body: JSON.stringify(said)});
})();
</script>"""


@contextmanager
def page_server(said):
    """Serve the page from another origin, and put the results that it reports into the queue `said`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content = self.server.page.encode() if self.path == "/" else b""
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self):
            said.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.do_GET()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def answers(monkeypatch):
    """Collect host, method, path, status and headers of every answer to a browser."""
    found = []
    stock = server.authenticate

    def watched(*arguments, **options):
        application = stock(*arguments, **options)

        def respond(environ, start_response):
            def started(status, headers):
                if "Chrome" in environ.get("HTTP_USER_AGENT", ""):
                    where = environ["HTTP_HOST"].partition(":")[0], environ["REQUEST_METHOD"], environ["PATH_INFO"]
                    found.append((*where, status[:3], tuple(name.lower() for name, _ in headers)))
                return start_response(status, headers)

            return application(environ, started)

        return respond

    monkeypatch.setattr(server, "authenticate", watched)
    return found


def state(session):
    """Return the jobs, objects and users of an account."""
    s3 = session.client("s3")
    buckets = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    return {
        "jobs": [
            job["TrainingJobName"] for job in session.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
        ],
        "objects": {
            name: [item["Key"] for item in s3.list_objects_v2(Bucket=name).get("Contents", [])] for name in buckets
        },
        "users": [user["UserName"] for user in session.client("iam").list_users()["Users"]],
    }


def test_a_page_cannot_run_create_read_or_reset_anything(answers, tmp_path):
    program = chromium()
    said, proof = queue.Queue(), tmp_path / "proof"
    with LocalAWS() as aws, page_server(said) as server:
        session = aws.session()
        s3 = session.client("s3")
        s3.put_object(
            Bucket=aws.bucket, Key="script.js", Body=b"document.title = 'read'", ContentType="text/javascript"
        )
        s3.put_bucket_cors(
            Bucket=aws.bucket,
            CORSConfiguration={"CORSRules": [{"AllowedMethods": ["GET", "PUT", "POST"], "AllowedOrigins": ["*"]}]},
        )
        before = state(session)
        job = {
            "TrainingJobName": "page",
            "AlgorithmSpecification": {
                "TrainingImage": "any",
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["python3", "-c", f"open({str(proof)!r}, 'w')"],
            },
            "RoleArn": aws.role_arn,  # no page can know this
            "OutputDataConfig": {"S3OutputPath": f"s3://{aws.bucket}/jobs"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        }
        port = aws.endpoint_url.rpartition(":")[2]
        names = ("127.0.0.1", "localhost", "rebound.example")
        presigned = s3.generate_presigned_url("get_object", Params={"Bucket": aws.bucket, "Key": "script.js"})
        server.page = (
            PAGE.replace("JOB", json.dumps(job))
            .replace("BASES", json.dumps([f"http://{name}:{port}" for name in names]))
            .replace("BUCKET", aws.bucket)
            .replace("PRESIGNED", presigned)
        )
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        command = [program, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", url]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
            try:
                got = said.get(timeout=120)
            finally:
                browser.terminate()
        assert state(session) == before
    assert not proof.exists()
    assert {status for *_, status, _ in answers} == {"403"}
    assert not any(name.startswith("access-control") for *_, headers in answers for name in headers)
    # The page did try. Simple requests arrived at every host name, but no request followed the refused preflights.
    for name in names:
        came = {(method, path) for host, method, path, *_ in answers if host == name}
        assert {("POST", "/"), ("POST", "/moto-api/reset"), ("OPTIONS", "/"), ("GET", "/moto-api/data.json")} <= came
        assert ("PUT", "/stolen-bucket") not in came
    assert not any(answer.startswith(("READ", "OPEN")) for answer in got.values() if isinstance(answer, str)), got
    images = [answer for way, answer in got.items() if way.startswith(("image", "script", "presigned"))]
    assert not {"loaded", "opaque"} & set(images), got
