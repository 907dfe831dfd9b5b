"""The scheduler at work behind a conversation about pets, set up in two ways.

Automatic: the scheduler comes from a YAML file, `MOS` hands it every query and answer.
Manual: the parts are made one by one, and the messages are submitted by hand.

Both end with the web logs: what the scheduler did, and why. No key, no server.

    python examples/mem_scheduler/schedule_w_memos.py
"""

import os
import tempfile
from pathlib import Path

# A folder of its own, so that the example leaves your memories alone.
os.environ.setdefault("MEMOS_HOME", tempfile.mkdtemp(prefix="memos-example-"))

from memos.configs.mem_os import MOSConfig
from memos.configs.mem_scheduler import SchedulerConfigFactory
from memos.mem_cube.general import GeneralMemCube
from memos.mem_os import MOS
from memos.mem_scheduler.general_scheduler import GeneralScheduler
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import ANSWER_LABEL, QUERY_LABEL
from memos.runtime import build
from memos.settings import Settings
from memos.testing import run_until_idle

CONFIG_FOLDER = Path(__file__).resolve().parents[1] / "data" / "config" / "mem_scheduler"
USER_ID = "example_user"


def init_task():
    """A conversation, and questions that come up later."""
    conversations = [
        {"role": "user", "content": "Since yesterday a golden retriever puppy lives with us."},
        {"role": "assistant", "content": "How lovely! What is the puppy called?"},
        {"role": "user", "content": "The puppy's name is Max, and he is nine weeks old."},
        {"role": "assistant", "content": "Welcome, Max! Are the nights quiet?"},
        {"role": "user", "content": "Not yet. He sleeps in a basket next to the kitchen stove."},
        {"role": "assistant", "content": "A warm place. That will get better in a few weeks."},
        {"role": "user", "content": "Max loves peanut butter, but I am allergic to peanuts myself."},
        {"role": "assistant", "content": "Then wear gloves when you give him peanut butter."},
        {"role": "user", "content": "Our vet is Doctor Lindqvist; the first vaccination is on 14 March."},
        {"role": "assistant", "content": "Noted: 14 March at Doctor Lindqvist's."},
    ]
    questions = [
        {"question": "What is the name of my puppy again?", "category": "Pet"},
        {"question": "What am I allergic to?", "category": "Health"},
        {"question": "Where does Max sleep?", "category": "Pet"},
        {"question": "When is the first vaccination?", "category": "Dates"},
    ]
    return conversations, questions


def show_web_logs(scheduler: GeneralScheduler):
    """What the scheduler did, oldest first."""
    print("\nWeb logs")
    for log in scheduler.get_web_log_messages():
        move = f"{log['from_memory_type']} -> {log['to_memory_type']}"
        sizes = log["current_memory_sizes"]
        print(
            f"  {log['label']:<15} {move:<28} {log['log_content']}  "
            f"[long-term {sizes['long_term_memory_size']}, working {sizes['working_memory_size']}]"
        )


def run_with_automatic_scheduler_init():
    """The scheduler as a YAML file describes it; `MOS` does the rest."""
    print("==== automatic initialisation ====")
    conversations, questions = init_task()
    config = MOSConfig(
        user_id=USER_ID,
        mem_scheduler=SchedulerConfigFactory.from_yaml_file(CONFIG_FOLDER / "general_scheduler_config.yaml"),
    )
    with MOS(config) as mos:
        mos.create_user(user_id=USER_ID)
        mos.register_mem_cube("automatic_pets", user_id=USER_ID)
        mos.add(messages=conversations, user_id=USER_ID, mem_cube_id="automatic_pets")
        for item in questions:
            # The query and the answer reach the scheduler by themselves.
            answer = mos.chat(item["question"], user_id=USER_ID)
            print(f"\n[{item['category']}] {item['question']}\n  {answer}")
            run_until_idle(mos.mem_scheduler)
        show_web_logs(mos.mem_scheduler)


def run_with_manual_scheduler_init():
    """Every part made by hand: configuration, runtime, cube, scheduler, messages."""
    print("\n==== manual initialisation ====")
    conversations, questions = init_task()
    scheduler_config = SchedulerConfigFactory(
        backend="optimized_scheduler",
        config={"top_k": 5, "thread_pool_max_workers": 4, "context_window_size": 5},
    )
    with build(Settings.load(), start=False, scheduler=scheduler_config) as runtime:
        scheduler = runtime.scheduler
        cube = GeneralMemCube("manual_pets", runtime=runtime)
        scheduler.initialize_modules(chat_llm=None)  # complete already: without a model, by rules
        scheduler.init_mem_cube(cube)
        scheduler.start()

        mos = MOS(runtime=runtime)
        mos.create_user(user_id=USER_ID)
        mos.register_mem_cube(cube, user_id=USER_ID)
        mos.add(messages=conversations, user_id=USER_ID, mem_cube_id=cube.cube_id)
        for item in questions:
            # First the query: it brings into working memory what the question needs.
            submit(scheduler, QUERY_LABEL, item["question"], cube.cube_id)
            answer = cube.text_mem.get_working_memory()[0].memory
            print(f"\n[{item['category']}] {item['question']}\n  {answer}")
            submit(scheduler, ANSWER_LABEL, answer, cube.cube_id)
        show_web_logs(scheduler)


def submit(scheduler: GeneralScheduler, label: str, content: str, mem_cube_id: str):
    """Hand one message to the scheduler and wait until everything that follows from it is done."""
    scheduler.submit_messages(
        [ScheduleMessageItem(user_id=USER_ID, mem_cube_id=mem_cube_id, label=label, content=content)]
    )
    run_until_idle(scheduler)


if __name__ == "__main__":
    run_with_automatic_scheduler_init()
    run_with_manual_scheduler_init()
