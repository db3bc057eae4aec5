"""The C++ engine alone, under AddressSanitizer, UBSan and ThreadSanitizer."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"
COMMON = ["-std=c++17", "-g1", "-Wall", "-Wextra", "-Wno-psabi", "-pthread", f"-I{CSRC}"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"]
ISA_FLAGS = {
    "kernels_avx2": ["-mavx2", "-mfma"],
    "kernels_avx512": AVX512,
    "kernels_avx512vnni": [*AVX512, "-mavx512vnni"],
}
X86 = platform.machine() in ("x86_64", "AMD64")

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def own_name(source):
    """What tells its instruction set: kernels_avx2 of folded_kernels_avx2."""
    return source.stem[max(0, source.stem.find("kernels")) :]


def compile_and_run(sources, flags, folder, *arguments, compiler="g++", runner=()):
    """Compile each source on its own (instruction sets differ), two at a time; link; run."""
    objects, running = [], []
    for source in sources:
        target = folder / f"{source.stem}.o"
        own = ISA_FLAGS.get(own_name(source), [])
        command = [compiler, *COMMON, *flags, *own, "-c", str(source), "-o", str(target)]
        running.append(subprocess.Popen(command))
        objects.append(str(target))
        if len(running) == 2:
            assert running.pop(0).wait() == 0
    assert all(process.wait() == 0 for process in running)
    program = str(folder / "program")
    subprocess.run([compiler, *COMMON, *flags, *objects, "-o", program], check=True)
    command = [*runner, program, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "passed" in result.stdout


def engine_sources():
    found = sorted(CSRC.glob("cpu/*.cpp")) + [CSRC / "parallel.cpp"]
    return [source for source in found if X86 or own_name(source) not in ISA_FLAGS]


def test_every_op_on_random_shapes_under_asan_and_ubsan(tmp_path):
    flags = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = [*HERE.glob("random_*.cpp"), *engine_sources()]
    compile_and_run(sources, flags, tmp_path, "150")


def test_what_judges_survivors_under_asan_and_ubsan(tmp_path):
    flags = ["-O2", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    kernels = [one for one in engine_sources() if one.stem.startswith("kernels")]
    compile_and_run([HERE / "screening.cpp", *kernels], flags, tmp_path)


def test_sums_of_rows_under_asan_and_ubsan(tmp_path):
    flags = ["-O2", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    parts = ("kernels", "folded_kernels", "row_sum")
    sources = [one for one in engine_sources() if one.stem.startswith(parts)]
    compile_and_run([HERE / "row_sums.cpp", *sources], flags, tmp_path)


def test_products_of_int16_under_asan_and_ubsan(tmp_path):
    flags = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    needed = ("kernels", "int16", "parallel")
    own = [one for one in engine_sources() if one.stem.startswith(needed)]
    compile_and_run([HERE / "int16_shapes.cpp", *own], flags, tmp_path)


def test_the_pool_under_tsan(tmp_path):
    sources = [HERE / "pool.cpp", CSRC / "parallel.cpp"]
    compile_and_run(sources, ["-O1", "-fsanitize=thread"], tmp_path)


@pytest.mark.skipif(
    shutil.which("aarch64-linux-gnu-g++") is None or shutil.which("qemu-aarch64") is None,
    reason="needs aarch64-linux-gnu-g++ and qemu-aarch64",
)
def test_every_op_on_an_emulated_arm(tmp_path):
    """The portable path, whose loops the compiler turns into NEON."""
    sources = [*HERE.glob("random_*.cpp")]
    sources += [one for one in engine_sources() if own_name(one) not in ISA_FLAGS]
    compile_and_run(
        sources,
        ["-O2", "-static"],
        tmp_path,
        "40",
        compiler="aarch64-linux-gnu-g++",
        runner=("qemu-aarch64",),
    )
