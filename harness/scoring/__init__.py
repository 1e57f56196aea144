"""Rankings to numbers: official and strict retrieval scores, where their points are lost, intervals, and box AP."""
