"""How a model is trained, whichever it is: the loop, what it keeps, processes that train together, cards, pairs."""
