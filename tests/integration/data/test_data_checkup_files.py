"""The files of a check-up on S3."""

from __future__ import annotations

import json

from data_reports import findings, report
from sqlquarry.emulator import LocalAWS


def test_json_and_page_are_also_written_to_s3() -> None:
    found = report(findings())
    with LocalAWS() as aws:
        session, uri = aws.session(), f"s3://{aws.bucket}/checkup"
        found.to_json(f"{uri}/report.json", session=session)
        found.to_html(f"{uri}/report.html", session=session)
        client = session.client("s3")
        content = json.load(client.get_object(Bucket=aws.bucket, Key="checkup/report.json")["Body"])
        page = client.get_object(Bucket=aws.bucket, Key="checkup/report.html")["Body"].read().decode()
    assert len(content["findings"]) == len(findings())
    assert page.endswith("</html>")
