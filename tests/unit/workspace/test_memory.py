"""Before a recipe trains, its estimate is compared with the available memory."""

from types import SimpleNamespace

import psutil
import pytest
from pydantic import ValidationError

from pipeline.errors import ResourceError
from pipeline.workspace.memory import TrainConfig, free_memory, limit_of, refuse_too_large, size
from tests.raising import raises

GB = 1 << 30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Write the kernel's files: `groups` is path below /sys/fs/cgroup -> file -> text."""

    def write(*, available, groups, member=""):
        memory = SimpleNamespace(available=available)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(member)
        for place, files in groups.items():
            folder = tmp_path / "sys/fs/cgroup" / place
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (folder / name).write_text(f"{text}\n")
        return tmp_path

    return write


def group(limit, used, cache):
    stat = f"anon 7\nfile {cache + 5}\ninactive_file {cache}\nactive_file 5"
    return {"memory.max": limit, "memory.current": used, "memory.stat": stat}


def group_1(limit, used, cache):
    return {
        "memory.limit_in_bytes": limit,
        "memory.usage_in_bytes": used,
        "memory.stat": f"inactive_file 1\ntotal_inactive_file {cache}",
    }


def test_without_a_control_group_the_limit_is_the_memory_of_the_machine(machine):
    system = machine(available=6 * GB, groups={}, member="0::/\n")
    assert free_memory(system) == 6 * GB


def test_a_container_has_its_limit_minus_its_use(machine):
    files = group(4 * GB, 3 * GB, GB // 2)
    system = machine(available=60 * GB, groups={"": files}, member="0::/\n")
    assert free_memory(system) == GB + GB // 2


def test_the_tightest_of_the_groups_above_decides(machine):
    groups = {
        "batch.slice": group(3 * GB, 2 * GB, 0),
        "batch.slice/night.service": group("max", GB, 0),
        "other.slice": group(1, 1, 0),
    }
    member = "0::/batch.slice/night.service\n"
    system = machine(available=60 * GB, groups=groups, member=member)
    assert free_memory(system) == GB


def test_the_first_version_of_groups(machine):
    groups = {"memory": group_1(9223372036854771712, 50 * GB, 0)}
    groups["memory/docker/abc"] = group_1(2 * GB, GB, GB // 4)
    member = "9:name=systemd:/\n4:cpu,memory:/docker/abc\n1:cpu:/docker/abc\n0::/\n"
    system = machine(available=60 * GB, groups=groups, member=member)
    assert free_memory(system) == GB + GB // 4


def test_a_container_sees_its_own_group_as_the_root(machine):
    groups = {"memory": group_1(2 * GB, GB, 0)}
    member = "4:memory:/docker/abc\n"
    system = machine(available=60 * GB, groups=groups, member=member)
    assert free_memory(system) == GB


def test_a_group_over_its_limit_leaves_nothing(machine):
    system = machine(available=GB, groups={"": group(5, 9, 1)}, member="0::/\n")
    assert free_memory(system) == 0


def test_this_machine_reports_its_memory():
    assert 1 << 20 < free_memory() < 1 << 50
    assert limit_of(TrainConfig()) > 1 << 20


def test_a_setting_is_taken_at_its_word():
    assert limit_of(TrainConfig(memory_gb=2.5)) == 2.5 * GB
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValidationError):
            TrainConfig(memory_gb=wrong)


def test_the_refusal_names_estimate_limit_and_way_out():
    recipe = SimpleNamespace(peak_bytes=lambda history: 300 * GB)
    with pytest.raises(ResourceError) as caught:
        refuse_too_large("als", recipe, None, TrainConfig(memory_gb=0.001))
    assert caught.value.sentence == (
        "als: training needs about 300.0 GB, the limit is 1.0 MB (train.memory_gb); "
        "allow more memory or configure a smaller recipe"
    )
    with raises("memory.recipe_too_large"):
        refuse_too_large("als", SimpleNamespace(peak_bytes=lambda _: 1 << 60), None, TrainConfig())
    refuse_too_large("als", recipe, None, TrainConfig(memory_gb=300))


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0.0 MB"), (1 << 20, "1.0 MB"), (270 << 20, "270.0 MB"), (1288490189, "1.2 GB")],
)
def test_sizes_have_a_unit(count, text):
    assert size(count) == text
