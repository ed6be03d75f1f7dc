"""The paper's exploratory experiment: what entropy and activation make of foreground masks of growing area.

The command is `python -m utils.exploratory`; the same in Python, for a run in `demo_run`:

    run = find_run(Path("demo_run"))                        # utils.inference.finished_run
    loaded, split = run.load(dataset), run.load_split(dataset, "test")
    experiment = run_experiment(loaded.model, split, loaded.recipe, loaded.device)
    summary = summarize(experiment.curves)
    print(table(summary), verdict(summary), sep="\n")
    save_figures(Path("Img"), experiment.curves, split, loaded.recipe)

Everything after the measurement needs the curves alone, which `write_curves` saves and `read_curves` reads again; the
figures read the pictures and masks of their examples anew.

- `masks`: the family of an object's masks, by erosion and dilation;
- `measure`: pictures through masks through the network: curves;
- `summary`: curves to numbers, a table and a verdict on the paper's claim;
- `records`: the files, and whether older ones are of this network (`find_curves_of`);
- `examples`: which pictures are shown, by a rule;
- `panels`, `figures`: `motivation.png`, `experiment.png`.
"""

from utils.exploratory.figures import save_figures
from utils.exploratory.measure import Curve, Experiment, run_experiment
from utils.exploratory.records import read_curves, write_curves, write_summary
from utils.exploratory.summary import summarize, table, verdict

__all__ = [
    "Curve",
    "Experiment",
    "read_curves",
    "run_experiment",
    "save_figures",
    "summarize",
    "table",
    "verdict",
    "write_curves",
    "write_summary",
]
