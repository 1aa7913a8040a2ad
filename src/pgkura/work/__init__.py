"""Work units on any executor: what a worker keeps between units, pools of workers, and the loop that feeds them."""
