"""`bcl summary`: a run, a recipe, and the paper's figures by hand."""

from bclightning.cli.main import main


def test_a_summary_of_a_run_and_of_a_recipe(runs, capsys, refused):
    main(["summary", "stochastic"])
    of_run = capsys.readouterr().out
    assert "hidden.0.linear" in of_run
    assert "16x64" in of_run
    tiny = ["--model.network.hidden", "[16]", "--model.network.regularizer", "stochastic"]
    main(["summary", "digits.yaml", *tiny])
    assert capsys.readouterr().out == of_run
    main(["summary", "none"])
    assert "No weight is binary" in capsys.readouterr().out
    assert "bcl summary RUN, or bcl summary mnist.yaml" in refused("summary")
    assert "there is no run 'nothere'" in refused("summary", "nothere")
    sentence = refused("summary", "digits", "--model.network.init_args.in_features", "100")
    assert "the network does not take the images of digits, 1 x 8 x 8" in sentence
    assert "(did you mean mnist.yaml?)" in refused("summary", "minst.yaml")


def test_a_summary_of_the_papers_network_has_the_figures_by_hand(folder, capsys):
    main(["summary", "mnist.yaml"])
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines()[:14])) <= 80
    assert "63.3 % of the multiplications" in said
    # 2,910,208 products at 4.6 pJ, and 11.67 MB at 20.3 pJ a bit.
    assert "13.4 µJ" in said
    assert "1.90 mJ" in said
