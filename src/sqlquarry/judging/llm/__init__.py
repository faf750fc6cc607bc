"""Grade with language models, whose votes on each prediction decide by majority."""

from sqlquarry.judging.llm.grader import LLMGrader
from sqlquarry.judging.llm.judge_model import JudgeUsage, StructuredGenerator
from sqlquarry.judging.llm.rubric import PUBLISHED, STRICT, Rubric

__all__ = ["PUBLISHED", "STRICT", "JudgeUsage", "LLMGrader", "Rubric", "StructuredGenerator"]
