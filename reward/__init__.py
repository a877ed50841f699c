"""The reward model: learning from preferences, judging the result, exporting it as scorer and critic."""
