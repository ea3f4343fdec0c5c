// Runs as the body of a function (element, trigger): a button names its example.
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-index]");
  if (button) trigger("select", { index: Number(button.dataset.index), value: "" });
});
