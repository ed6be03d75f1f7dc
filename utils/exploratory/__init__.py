"""The paper's exploratory experiment: what entropy and activation make of foreground masks of growing area.

The command is `python -m utils.exploratory`; the same in Python, for a run in `demo_run`:

    run = find_run(Path("demo_run"), find_datasets())       # utils.runs.finished, utils.data.dataset
    loaded, split = load(run.dataset, run.arch, run.weights), run.load_split("test")  # utils.inference.loading
    experiment = run_experiment(loaded.model, split, loaded.recipe, loaded.device)  # maps stretched over the crop
    summary = summarize(experiment.curves)
    print(table(summary), verdict(summary), sep="\n")
    save_figures(Path("Img"), experiment.curves, split, loaded.recipe)

`masks`: the family of an object's masks; `measure`: pictures through masks through the network, to curves; `summary`:
curves to numbers, a table, a verdict and files; `examples`, `figures`: `motivation.png` and `experiment.png`.
"""

from utils.exploratory.figures import save_figures
from utils.exploratory.measure import run_experiment
from utils.exploratory.summary import summarize, table, verdict

__all__ = ["run_experiment", "save_figures", "summarize", "table", "verdict"]
