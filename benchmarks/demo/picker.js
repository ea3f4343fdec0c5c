// Runs as the body of a function (element, trigger, props, watch): a chosen file becomes the component's value, a data:
// address.
const input = element.querySelector("input");
const said = element.querySelector(".mt-said");
const most = Number(input.dataset.most);
let taken = "";

// An example sets the value from outside.
watch("value", () => {
  if (props.value === taken) return;
  input.value = "";
  said.textContent = "An example of the test split.";
});

function take(address, message) {
  said.textContent = message;
  taken = address;
  props.value = address;
  trigger("upload");
}

input.addEventListener("change", () => {
  const file = input.files[0];
  if (!file) return;
  if (file.size > most) {
    input.value = "";
    take("", `${file.name} has ${(file.size / 1e6).toFixed(1)} MB; choose a file of at most ${most / 1e6} MB.`);
    return;
  }
  const reader = new FileReader();
  reader.onload = () => take(reader.result, file.name);
  reader.onerror = () => take("", `${file.name} cannot be read; choose another one.`);
  reader.readAsDataURL(file);
});
