"""The OpenAPI document, the page that shows it, and the documentation's own example."""

import json
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from prefrm.access.tokens import TokenFile
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer
from serving.wire.docs_page import DOCS_PATHS
from tests.serving.score_calls import as_json, post

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def document(served):
    return httpx.get(f"http://{served.http}/openapi.json").json()


class TestDocument:
    def test_the_route_is_described(self, document):
        route = document["paths"]["/v1/score"]["post"]
        schema = route["requestBody"]["content"]["application/json"]["schema"]
        images = schema["properties"]["groups"]["items"]["properties"]["images"]
        # A server of 4 groups of 8 answers one group of up to 16, if only as not judged.
        assert (images["minItems"], images["maxItems"]) == (2, 16)
        assert schema["properties"]["groups"]["maxItems"] == 4
        pattern = re.compile(images["items"]["anyOf"][0]["pattern"])
        for text in ("aGFsbG8=", "data:image/png;base64,aGFsbG8=", "aGFs"):
            assert pattern.match(text)
        for text in ("aGFsbG8", "http://a", "aGFs\nbG8=", "data:image/png,aGFs", "data:image/png;base64,"):
            assert not pattern.match(text)
        assert "$ref" not in json.dumps(schema)
        assert {"200", "400", "401", "404", "413", "429", "503", "504"} <= route["responses"].keys()
        for code in ("400", "504"):
            error = route["responses"][code]["content"]["application/json"]["schema"]
            assert error == {"$ref": "#/components/schemas/ErrorAnswer"}

    def test_every_field_of_an_answer_is_described(self, document, served, group):
        fields = document["components"]["schemas"]["GroupScore"]["properties"]
        answer = post(served, as_json([group("a")])).json()
        # Of some scorers alone.
        assert fields.keys() - {"spread", "label_mass"} == answer["groups"][0].keys()
        assert all(field["description"] for field in fields.values())
        assert document["components"]["schemas"]["ScoreAnswer"]["properties"].keys() == answer.keys()

    def test_its_example_can_be_sent(self, document, served):
        schema = document["paths"]["/v1/score"]["post"]["requestBody"]["content"]["application/json"][
            "schema"
        ]
        (example,) = schema["examples"]
        assert post(served, example).json()["groups"][0]["errors"] == ["", ""]

    def test_it_has_the_protocol_and_nothing_that_is_never_answered(self, document):
        assert "/v2/models/{model}/infer" in document["paths"]
        assert document["paths"]["/v2"]["get"]["tags"] == ["Open Inference Protocol"]
        assert "422" not in json.dumps(document)
        operations = [route["operationId"] for path in document["paths"].values() for route in path.values()]
        assert len(set(operations)) == len(operations)

    def test_every_reference_has_its_target(self, document):
        for name in set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document))):
            assert name in document["components"]["schemas"]

    def test_every_operation_has_a_title_of_its_own(self, document):
        """And not one that is made from the name of a function."""
        operations = [route for path in document["paths"].values() for route in path.values()]
        titles = [route["summary"] for route in operations]
        assert len(set(titles)) == len(titles)
        assert "Score groups, as tensors, with a version of a model" in titles
        tags = {tag["name"] for tag in document["tags"]}
        assert all(set(route["tags"]) <= tags and len(route["tags"]) == 1 for route in operations)

    def test_there_is_no_padlock_without_a_token(self, document):
        assert "securitySchemes" not in document["components"] and "security" not in document
        assert "security" not in document["paths"]["/v1/score"]["post"]

    def test_with_tokens_all_but_the_open_paths_have_one(self, scorer, tmp_path):
        (tmp_path / "tokens").write_text("a-token-that-nobody-guesses\n")
        tokens = TokenFile(tmp_path / "tokens")
        with background(JudgeServer(scorer, ModelInfo(name="judge"), tokens=tokens)) as locked:
            document = httpx.get(f"http://{locked.http}/openapi.json").json()
            assert httpx.get(f"http://{locked.http}/").json()["docs"] == "/docs"
        assert document["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
        assert document["security"] == [{"token": []}]
        free = {
            path for path, routes in document["paths"].items() if routes.get("get", {}).get("security") == []
        }
        assert free == {"/v2/health/live", "/v2/health/ready"}
        assert "security" not in document["paths"]["/v1/score"]["post"]


class TestPage:
    def test_the_root_says_where_to_go(self, served):
        answer = httpx.get(f"http://{served.http}/").json()
        assert answer["name"] == "prefrm" and "judge" not in answer.values()
        for what in ("docs", "openapi", "protocol", "ready"):
            assert httpx.get(f"http://{served.http}{answer[what]}").status_code == 200
        assert httpx.post(f"http://{served.http}{answer['score']}").status_code == 400

    def test_it_loads_nothing_from_elsewhere(self, served):
        base = f"http://{served.http}"
        page = httpx.get(f"{base}/docs")
        assert page.status_code == 200
        assert "http" not in re.sub(r'<meta name="viewport"[^>]*>', "", page.text)
        loaded = re.findall(r"(?:src|href|url)[=:] ?[\"']([^\"']+)", page.text)
        assert sorted(loaded) == [
            "docs/favicon-32x32.png",
            "docs/swagger-ui-bundle.js",
            "docs/swagger-ui.css",
            "openapi.json",
        ]
        assert {"/", "/docs", *(f"/{path}" for path in loaded)} == DOCS_PATHS
        assert re.search("<title>prefrm .*: HTTP API</title>", page.text)
        for path in loaded:
            answer = httpx.get(f"{base}/{path}")
            assert answer.status_code == 200
            assert len(answer.content) > 100
        assert '"validatorUrl": null' in page.text


def test_the_example_of_the_documentation_works(served, png, tmp_path):
    text = (DOCS / "serving.md").read_text()
    (command,) = re.findall(r"```sh\n(.*?/v1/score.*?)```", text, re.DOTALL)
    for name, shade in (("a.png", 10), ("b.png", 200)):
        (tmp_path / name).write_bytes(png(shade))
    script = command.replace("127.0.0.1:8000", served.http)
    assert script != command
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    answer = json.loads(done.stdout)
    assert len(answer["groups"][0]["win_rate"]) == 2
