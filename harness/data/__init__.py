"""Photos and annotations in: DeepFashion2 folders, the rendered data set, crops, challenge and COCO exports."""
