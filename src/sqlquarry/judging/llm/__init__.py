"""Grade with language models, whose votes on each prediction decide by majority."""

from sqlquarry.judging.llm.forms import StructuredGenerator
from sqlquarry.judging.llm.grader import LLMGrader
from sqlquarry.judging.llm.judge_model import JudgeUsage
from sqlquarry.judging.llm.prompt_rubric import PUBLISHED, PromptRubric
from sqlquarry.judging.llm.rubric import STRICT, Rubric

__all__ = ["PUBLISHED", "STRICT", "JudgeUsage", "LLMGrader", "PromptRubric", "Rubric", "StructuredGenerator"]
