"""A language model as the judge: rubric -> fenced question -> one opinion per vote -> verdict of the majority."""

from sqlquarry.judging.llm.grader import LLMGrader
from sqlquarry.judging.llm.judge_model import JudgeUsage, StructuredGenerator
from sqlquarry.judging.llm.rubric import PUBLISHED, STRICT, Rubric

__all__ = ["PUBLISHED", "STRICT", "JudgeUsage", "LLMGrader", "Rubric", "StructuredGenerator"]
