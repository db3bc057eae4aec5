"""The mutation check itself: what it breaks, and that what is called equivalent is there."""

from __future__ import annotations

import mutants


def test_every_barrier_and_wait_of_the_kernels_is_a_site():
    sites = [site for site, *_ in mutants.all_sites()]
    sources = [
        one for one in mutants.KERNELS.iterdir() if one.name not in ("platform.h", "budgets.json")
    ]
    text = "".join(path.read_text() for path in sources)
    words = ("__syncthreads();", "__syncwarp();", "Team::sync();", "commit_copies();",
             "wait_for_copies<kStages - 2>();")  # fmt: skip
    there = sum(text.count(word) for word in words)
    there -= text.count("{ __syncwarp(); }") + text.count("{ __syncthreads(); }")  # Team::sync is
    assert sum(site.change == "taken out" for site in sites) == there > 15
    assert len({site.key for site in sites}) == len(sites) > 150


def test_a_site_is_found_where_it_stands(tmp_path):
    source = tmp_path / "kernel.cu"
    source.write_text(
        "template <int kN>\n"
        "#if defined(__CUDACC__)\n  if (a < b) return;\n#else\n  if (c >= -d) return;\n#endif\n"
        "  for (int i = 0; i < n && f[i] <= m; ++i) g(x->y << 3);  // a < b\n"
        "  __syncthreads();  // why\n"
    )
    found = [(site.line, site.change) for site, *_ in mutants.sites_of(source)]
    assert found == [(5, ">= to >"), (7, "< to <="), (7, "<= to <"), (8, "taken out")]


def test_mutants_called_equivalent_exist_and_are_few():
    keys = {site.key for site, *_ in mutants.all_sites()}
    called = mutants.equivalents()
    assert called.keys() <= keys, called.keys() - keys
    assert len(called) <= len(keys) / 10
    assert all(len(reason.split()) > 4 for reason in called.values())
