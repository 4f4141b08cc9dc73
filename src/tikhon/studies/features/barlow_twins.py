"""Do features that Barlow Twins learn without labels classify better from few labels than training on these alone?"""

from tikhon.studies.pretraining import SETTING, rates, run
from tikhon.studies.study import Expectation, Study

study = Study(
    question="With 50 labels, is a linear classifier of Barlow Twins' features better than training on them?",
    setting=SETTING,
    run=run,
    arms={"none": rates("none"), "barlow_twins": rates("barlow_twins(redundancy=0.0078125)")},
    expectations=[Expectation("barlow_twins", "none")],
)
