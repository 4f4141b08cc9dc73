"""Do features that VICReg learns without labels classify better from few labels than a network trained on these?"""

from tikhon.studies.pretraining import SETTING, rates, run
from tikhon.studies.study import Expectation, Study

study = Study(
    question="With 50 labels, is a linear classifier of VICReg's features better than the network trained on them?",
    setting=SETTING,
    run=run,
    arms={"none": rates("none"), "vicreg": rates("vicreg")},
    expectations=[Expectation("vicreg", "none")],
)
