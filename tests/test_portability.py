"""Identity and audits are the same on machines that environment variables imitate, as in benchmarks/portability.py."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
ATTACKERS = ("mlp", "logistic")
MACHINES = {
    "as is": {},
    "no vector instructions": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "older, two threads": {
        "OMP_NUM_THREADS": "2",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ONEDNN_MAX_CPU_ISA": "AVX",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
}
AUDITS = f"""
import json
import partcrop_lab as pl

encoder = pl.load_encoder("zoo:mae", precision="fp32")
split = pl.MembershipSplit(
    encoder.split.members.subset(slice(0, 60)), encoder.split.nonmembers.subset(slice(0, 60)), "drawn"
)
found = {{}}
for attacker in {ATTACKERS}:
    result = pl.audit(encoder, split, pl.attacks.PartCrop(crops=8), attacker, permutations=1, progress=False)
    found[attacker] = [*result.metrics.loc["auc", ["value", "low", "high"]], *result.controls["auc"]]
resnet = pl.load_encoder("random:resnet18", image_size=32, small_stem=True)
digests = [encoder.digest, encoder.untrained(5).digest, resnet.digest, split.digest]
print(json.dumps([digests, found]))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What a process on each machine says of the same encoders and audits, each with a cache of its own."""
    running = {}
    for name, variables in MACHINES.items():
        environment = os.environ | {"PARTCROP_LAB_CACHE": str(tmp_path_factory.mktemp("cache"))} | variables
        environment.pop("PARTCROP_LAB_PRECISION", None)
        command = [sys.executable, "-c", AUDITS]
        running[name] = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    return {name: json.loads(process.communicate(timeout=300)[0]) for name, process in running.items()}


def test_encoders_controls_and_splits_have_the_same_digests_on_every_machine(told):
    assert len({json.dumps(digests) for digests, _ in told.values()}) == 1


@pytest.mark.parametrize("attacker", ATTACKERS)
def test_audits_and_their_controls_say_the_same_to_three_decimals_on_every_machine(told, attacker):
    here, *others = (found[attacker] for _, found in told.values())
    assert len(here) == 6 and len(others) == 2
    for there in others:
        assert there == pytest.approx(here, abs=0.001)
