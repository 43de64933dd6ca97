"""schemathesis against the running gateway, before services that obey the contracts' rules: it must find nothing.

Here what the document allows must be accepted to the last; the system tests ask the real services, which know more rules.
"""

import json
import re
import subprocess
import sys

import pytest

from gateway import testing

# One of each form: names in paths, queries, a field as body, etags, masks, oneofs, integers, times, lists of messages, a view.
FORMS = (
    "GetInstitution|ListInstitutions|UpdateSourceSystem|CreateSourceSystem|SearchCustomers|RedeemPoints|ListRatingHistory"
    "|LaunchCampaign|RecordContact|CustomerView"
)
KINDS = ("staff", "channel", "operator")
SHOWN = (r"Selected: (\d+)", r"Tested: (\d+)", r"generated, (\d+) passed")


@pytest.fixture(scope="module")
def stack():
    """A gateway and its services in a process of their own."""
    command = [sys.executable, "-m", "gateway.testing"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())
    process.communicate(timeout=30)


def finds_nothing(done):
    assert done.returncode == 0, done.stdout[-6000:]
    selected, tested, passed = (int(re.findall(one, done.stdout)[0]) for one in SHOWN)
    assert selected == tested, done.stdout[-2000:]
    assert passed > 100, done.stdout[-2000:]  # it did something


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", KINDS)
def test_random_requests_to_everything(stack, served, tmp_path, kind):
    its_share = f"--include-operation-id-regex={testing.shared_out(served, KINDS)[kind]}"
    options = ("--phases=fuzzing", "--max-examples=8", "--seed=1", its_share)
    finds_nothing(testing.schemathesis(stack["url"], stack[kind], tmp_path, *options))


@pytest.mark.timeout(400)
def test_every_boundary_of_each_form(stack, tmp_path):
    options = ("--phases=examples,coverage", "--seed=1", f"--include-operation-id-regex={FORMS}")
    finds_nothing(testing.schemathesis(stack["url"], stack["staff"], tmp_path, *options))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_every_boundary_of_everything(stack, tmp_path, kind):
    finds_nothing(testing.schemathesis(stack["url"], stack[kind], tmp_path, "--max-examples=50"))
