from benchmarks import data_preparation


def test_text_is_repeated_with_other_noise_up_to_the_size(tmp_path):
    (tmp_path / "a.txt").write_text("氯化钠与聚氯乙烯。\n\n硫酸与硝酸反应。\n" * 1000, encoding="utf-8")
    data_preparation.repeat(str(tmp_path / "a.txt"), str(tmp_path / "b.txt"), 1)
    content = (tmp_path / "b.txt").read_bytes()
    lines = content.decode("utf-8").split("\n")
    assert len(content) == 1 << 20
    assert len(set(lines)) > 50 and lines.count("氯化钠与聚氯乙烯。") > 10000
